"""The batched operations: files on a real directory, units and accounts on canned facts."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pyinfra.api.connect import connect_all
from pyinfra.api.deploy import add_deploy
from pyinfra.api.host import Host
from pyinfra.api.operations import run_ops
from pyinfra.context import ctx_state

from roles.lib.accounts import Account, Accounts, Known, accounts
from roles.lib.files import Absent, Directory, Entry, Link, ManagedFile, managed_files
from roles.lib.live import live
from roles.lib.packages import HOOK, LEFT, InstalledPackages, packages
from roles.lib.settle import settle as settle_role
from roles.lib.units import Observed, Unit, UnitStates, actions, units
from tests.unit.locally import commands, new_state, shell

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files can only be set by root")


SELF = (pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name)


def asked_for(files: list[ManagedFile]) -> list[int]:
    """Run one operation for each file on this machine; returns for how many files each question asked."""
    asked: list[int] = []
    ask = Host.get_fact

    def counted(host: Host, fact: Any, **arguments: Any) -> Any:
        asked.append(len(arguments["paths"]))
        return ask(host, fact, **arguments)

    def work() -> None:
        for file in files:
            managed_files(name=f"Write {file.path}", entries=[replace(file, user=SELF[0], group=SELF[1])])

    state = new_state("@local")
    state.check_for_changes = False  # as with -y: nothing is asked before the first operation runs
    with ctx_state.use(state), patch.object(Host, "get_fact", counted):
        connect_all(state)
        add_deploy(state, work)
        run_ops(state)
    return asked


def settle(entries: list[Entry]) -> int:
    """Apply; returns the number of commands that ran."""
    todo = commands(lambda: managed_files(name="Write files", entries=entries))
    for command in todo:
        done = shell(command)
        assert done.returncode == 0, done.stderr
    return len(todo)


@ROOT_ONLY
@pytest.mark.parametrize("content", ["one line\n", "no newline at the end", "", "mäcron\n'\"$(id)`\n", "x" * 200_000])
def test_a_file_settles_in_one_run(tmp_path: Path, content: str) -> None:
    """Any content; the second run does nothing."""
    file = ManagedFile(str(tmp_path / "it's a file"), content, mode=0o640)
    assert (settle([file]), settle([file])) == (1, 0)
    written = Path(file.path)
    assert written.read_text().removesuffix("\n") == content.removesuffix("\n")
    assert stat.S_IMODE(written.stat().st_mode) == 0o640


@ROOT_ONLY
def test_every_difference_is_seen(tmp_path: Path) -> None:
    """Content, mode, owner, kind: each alone is a change."""
    path = tmp_path / "file"
    file = ManagedFile(str(path), "right\n")
    settle([file])
    other = tmp_path / "link"
    other.symlink_to("/dev/null")
    for spoil in (
        lambda: path.write_text("wrong\n"),
        lambda: path.chmod(0o600),
        lambda: os.chown(path, 1, 0),
        lambda: os.replace(other, path),
        path.unlink,
    ):
        spoil()
        assert (settle([file]), settle([file])) == (1, 0)


@ROOT_ONLY
def test_a_file_that_does_not_validate_changes_nothing(tmp_path: Path) -> None:
    """The old file stays, and no draft is left behind."""
    path = tmp_path / "file"
    path.write_text("old\n")
    [command] = commands(
        lambda: managed_files(name="x", entries=[ManagedFile(str(path), "new\n", validate="grep -q fits")])
    )
    assert shell(command).returncode != 0
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_content_travels_on_stdin_alone(tmp_path: Path) -> None:
    """Not in the command that process lists and logs show."""
    file = ManagedFile(str(tmp_path / "env"), "PASSWORD=seeded-secret\n", mode=0o640)
    [command] = commands(lambda: managed_files(name="x", entries=[file]))
    assert "seeded-secret" not in command.get_raw_value() + str(command)
    assert "umask 077" in command.get_raw_value()


@ROOT_ONLY
def test_directory_link_and_absence(tmp_path: Path) -> None:
    """In the order given; links switch, what is retired goes."""
    inner = tmp_path / "dir" / "file"
    first: list[Entry] = [Directory(str(tmp_path / "dir"), mode=0o750), ManagedFile(str(inner), "x\n")]
    link = Link(str(tmp_path / "link"), "dir")
    assert (settle([*first, link]), settle([*first, link])) == (3, 0)
    assert (settle([Link(link.path, "elsewhere"), Absent(str(inner))]), inner.exists()) == (2, False)
    assert os.readlink(link.path) == "elsewhere"


def test_packages_are_one_run_of_apt() -> None:
    """All that is missing at once; nothing when nothing is."""
    names = ["a", "b", "c"]
    [command] = commands(lambda: packages(name="x", names=names), {InstalledPackages: {"b"}})
    assert command.get_raw_value().endswith("sh a c")
    assert commands(lambda: packages(name="x", names=names), {InstalledPackages: set(names)}) == []


@ROOT_ONLY
@pytest.mark.parametrize("running", [(), ("bash",), ("dpkg",)])
def test_a_hook_that_a_killed_installation_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: tuple[str, ...]
) -> None:
    """With it no upgrade would restart a service. While apt works it stays, and so does anybody else's."""
    hook, proc = tmp_path / "policy-rc.d", tmp_path / "proc"
    (tmp_path / "dpkg").write_text("#!/bin/sh\nkill -KILL $PPID\n")
    (tmp_path / "dpkg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    [install] = commands(lambda: packages(name="x", names=["a"]), {InstalledPackages: set()})
    killed = install.get_raw_value().replace(HOOK, str(hook))
    assert subprocess.run(["sh", "-c", killed], check=False).returncode != 0
    assert subprocess.run([str(hook)], check=False).returncode == 101
    for number, name in enumerate(("systemd", *running), 1):
        (proc / str(number)).mkdir(parents=True)
        (proc / str(number) / "comm").write_text(f"{name}\n")
    look, mend = (text.replace(HOOK, str(hook)).replace("/proc", str(proc)) for text in (LEFT.look, LEFT.mend))
    here = replace(LEFT, look=look, mend=mend)

    def mended() -> int:
        return len([shell(command) for command in commands(lambda: live(name="x", wanted=[here]))])

    assert (mended(), mended(), hook.exists()) == ((0, 0, True) if "dpkg" in running else (1, 0, False))
    hook.write_text("#!/bin/sh\nexit 101\n")
    assert mended() == 0


def unit_state(**changes: str) -> dict[str, str]:
    """A service that runs since second 100 of the day, as systemd shows it."""
    return {
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "LoadState": "loaded",
        "NeedDaemonReload": "no",
        "ConditionResult": "yes",
        "InactiveExitTimestamp": "Thu 1970-01-01 00:01:40.500000 UTC",
        "FragmentPath": "/lib/x.service",
        "DropInPaths": "/etc/x.d/60-mfg.conf",
    } | changes


@pytest.mark.parametrize(
    ("changes", "times", "wanted"),
    [
        ({}, {}, []),
        ({}, {"/etc/x": 100.4}, []),
        ({}, {"/etc/x": 100.6}, ["restart"]),
        ({}, {"/etc/x.d/60-mfg.conf": 101.0}, ["restart"]),
        ({}, {"/etc/other": 200.0}, []),
        ({"ActiveState": "inactive"}, {}, ["start"]),
        ({"ActiveState": "failed"}, {}, ["start"]),
        ({"ActiveState": "inactive", "UnitFileState": "disabled"}, {}, ["enable", "start"]),
        ({"NeedDaemonReload": "yes"}, {}, ["restart"]),
        ({"ActiveState": "inactive", "ConditionResult": "no", "ConditionTimestamp": "n/a"}, {}, []),
    ],
)
def test_a_unit_is_restarted_when_it_is_older_than_what_it_reads(
    changes: dict[str, str], times: dict[str, float], wanted: list[str]
) -> None:
    """Decided by state, so that a run that died between writing and restarting is healed."""
    assert (
        actions(Unit("x.service", reads=("/etc/x",)), Observed({"x.service": unit_state(**changes)}, times)) == wanted
    )


def test_a_reload_counts_until_the_next_change() -> None:
    """Our stamp says when the unit was last reloaded; a new drop-in needs a restart all the same."""
    unit = Unit("x.service", reads=("/etc/x",), reload=True)
    stamp = "/run/mastodon-gov/reloaded/x.service"
    for times, wanted in (
        ({"/etc/x": 200.0}, ["reload"]),
        ({"/etc/x": 200.0, stamp: 201.0}, []),
        ({"/etc/x": 202.0, stamp: 201.0}, ["reload"]),
        ({"/etc/x.d/60-mfg.conf": 150.0, stamp: 201.0}, ["restart"]),
    ):
        assert actions(unit, Observed({"x.service": unit_state()}, times)) == wanted


def test_masked_units_stay_masked() -> None:
    """Stopped and masked once, then left alone."""
    unit = Unit("x.service", masked=True)
    assert actions(unit, Observed({"x.service": unit_state()})) == ["mask --now"]
    masked = unit_state(LoadState="masked", ActiveState="inactive")
    assert actions(unit, Observed({"x.service": masked})) == []


@pytest.mark.parametrize(
    ("changes", "todo"),
    [
        ({}, 1),
        ({"ActiveState": "inactive"}, 1),  # would start with the next boot
        ({"UnitFileState": "disabled"}, 1),
        ({"ActiveState": "failed", "UnitFileState": "", "LoadState": "not-found"}, 1),  # its file went first
        ({"ActiveState": "inactive", "UnitFileState": "disabled"}, 0),  # its package stays
        ({"ActiveState": "inactive", "UnitFileState": "", "LoadState": "not-found"}, 0),
        ({"ActiveState": "inactive", "UnitFileState": "static", "NeedDaemonReload": "yes"}, 0),
    ],
)
def test_what_is_gone_neither_runs_nor_comes_back(changes: dict[str, str], todo: int) -> None:
    """Once; a unit that never was is settled."""
    gone, kept = Unit("x.timer", gone=True), Unit("y.timer")
    told = {UnitStates: Observed({"x.timer": unit_state(**changes), "y.timer": unit_state()})}
    found = [c.get_raw_value() for c in commands(lambda: units(name="x", wanted=[gone, kept]), told)]
    assert len(found) == todo
    assert all("disable --now x.timer" in command and "reset-failed x.timer" in command for command in found)
    assert actions(gone, Observed()) == []


def test_what_is_gone_ends_before_its_files_go(tmp_path: Path) -> None:
    """systemd knows what to stop as long as it can read it."""
    (tmp_path / "x.timer").touch()
    told = {UnitStates: Observed({"x.timer": unit_state()})}
    gone, file = Unit("x.timer", gone=True), Absent(str(tmp_path / "x.timer"))
    found = [c.get_raw_value() for c in commands(lambda: settle_role(files=[file], units_=[gone]), told)]
    assert ["disable" in command for command in found] == [True, False]


def test_systemd_is_read_as_it_prints() -> None:
    """Blocks of properties, then times; a link counts by the younger of itself and its target."""
    lines = ["Id=a.service", "Names=a.service b.service", "ActiveState=active", "=times", "5.5 /etc/a", "7.25 /etc/a"]
    seen = UnitStates().process(lines)
    assert seen.units["b.service"]["ActiveState"] == "active"
    assert seen.newest(["/etc/a", "/etc/nothing"]) == 7.25


def test_an_unknown_unit_makes_systemd_look_again() -> None:
    """A unit file that was just written is not known before daemon-reload."""
    unknown = {UnitStates: Observed({"x.service": {"LoadState": "not-found"}})}
    first, *_ = commands(lambda: units(name="x", wanted=[Unit("x.service")]), unknown)
    assert first.get_raw_value() == "systemctl daemon-reload"


def people(known: Known, wanted: list[Account], **options: Any) -> list[str]:
    """Raw commands of `accounts`."""
    todo = commands(lambda: accounts(name="x", wanted=wanted, groups=["mfg-admin"], **options), {Accounts: known})
    return [command.get_raw_value() for command in todo]


ALICE = Account("alice", "/home/alice", ("mfg-admin",), "/bin/bash", system=False)


def test_accounts_settle() -> None:
    """Missing ones are made, right ones left alone, wrong shells corrected."""
    settled = Known({"alice": ("/home/alice", "/bin/bash")}, {"mfg-admin": frozenset({"alice"})})
    assert people(settled, [ALICE], only=("mfg-admin",)) == []
    assert "useradd" in people(Known({}, {"mfg-admin": frozenset()}), [ALICE])[0]
    wrong = Known({"alice": ("/home/alice", "/bin/sh")}, settled.groups)
    assert people(wrong, [ALICE])[0].startswith("usermod --home")
    assert people(Known({"alice": settled.users["alice"]}, {"mfg-admin": frozenset()}), [ALICE]) == [
        "usermod -aG mfg-admin alice"
    ]


def test_who_is_not_declared_loses_the_account() -> None:
    """Key, sessions and account; the home directory stays. Accounts of other groups are not ours to remove."""
    known = Known(
        {"alice": ("/home/alice", "/bin/bash"), "eve": ("/home/eve", "/bin/bash")},
        {"mfg-admin": frozenset({"alice", "eve"}), "users": frozenset({"bob"})},
    )
    [removal] = people(known, [ALICE], only=("mfg-admin",))
    assert removal.endswith(" sh eve")
    assert 'rm -f /etc/ssh/keys/"$1"' in removal
    assert 'userdel "$1"' in removal


def test_one_question_until_something_changes(tmp_path: Path) -> None:
    """Files of all roles are asked for together; after a change each operation asks anew for its own."""
    first, second, third = (ManagedFile(str(tmp_path / name), f"{name}\n", mode=0o600) for name in "abc")
    for file in (first, second, third):
        Path(file.path).write_text(file.content)
        Path(file.path).chmod(file.mode)
    assert asked_for([first, second, third]) == [3]
    Path(second.path).write_text("other\n")
    assert asked_for([first, second, third]) == [3, 1]
    assert Path(second.path).read_text() == "b\n"
