"""Each check of the audit can fail: what is broken is seen, exactly that, and a deploy puts it right.

`make test` breaks everything of a role at once; `make test-all` also one by one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable

import pytest

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.compliance.mutations import APPLY, HEAL, MUTATIONS, UNDO
from tests.lab.deployed import Deployed

# Roles whose breaks do not disturb each other share a deploy.
TOGETHER = (
    ("ssh", "firewall", "certificates", "nginx", "mail", "backups"),
    ("redis", "postgresql"),
    ("base",),
    ("outside",),
    ("mastodon",),
)


def red(instance: Deployed, roles: Iterable[str]) -> tuple[set[str], list[str]]:
    """Checks of these roles that fail, as `name[parameter]`, and what those said that broke themselves."""
    place = REPOSITORY / "tests/compliance"
    files = [str(path) for role in roles for path in sorted(place.glob(f"test_{role}*.py"))]
    read, write = os.pipe()
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=no",
        "--instance",
        str(instance.directory),
    ]
    stranger = ["--from", "outside", "--from-ssh-config", str(instance.demo.lab.ssh_config)]
    run = subprocess.Popen(
        [*words, "--report-fd", str(write), *stranger, *files],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(write,),
    )
    os.close(write)
    with os.fdopen(read) as lines:
        told = [json.loads(line) for line in lines]
    output = run.communicate(timeout=300)[0].decode()
    assert run.returncode in (0, 1), output[-3000:]
    checks = [each["check"] for each in told if "check" in each]
    assert len(checks) > 1, output[-3000:]
    broken = [
        f"{c['name']}: {c['reason']}" for c in checks if c["state"] == "not run" and "itself broke" in c["reason"]
    ]
    return {plain(c["name"]) for c in checks if c["state"] == "failed"}, broken


def plain(name: str) -> str:
    """The check's name without the host."""
    return re.sub(r"\[(social|outside)\]|(social|outside)-|-(social|outside)(?=\])", "", name)


def unlike(seen: set[str], wanted: set[str]) -> set[str]:
    """What is in only one of them; `check[*]` stands for any of its parameters."""
    any_of = {check.removesuffix("*]") for check in wanted if check.endswith("[*]")}
    more = {check for check in seen - wanted if not check.startswith(tuple(any_of) or ("*",))}
    return more | {c for c in wanted - seen if not (c.endswith("[*]") and any(s.startswith(c[:-2]) for s in seen))}


def expected(role: str, mutations: Iterable[str]) -> set[str]:
    """Checks that these must redden."""
    assert all(names in MUTATIONS[role] for names in mutations)
    return {check for names in mutations for check in names.split()}


def broken(instance: Deployed, role: str, mutations: Iterable[str]) -> None:
    """Run the commands; each must work."""
    instance.root("set -e\n" + "\n".join(MUTATIONS[role][names] for names in mutations))
    if role in APPLY:
        instance.root(APPLY[role])


def healed(instance: Deployed, roles: Iterable[str]) -> None:
    """What others must undo, then a deploy; after that the audit is green."""
    instance.root("\n".join(HEAL.get(role, "") for role in roles) + "\ntrue")
    instance.deploy()
    assert red(instance, roles) == (set(), [])


@pytest.mark.parametrize("roles", TOGETHER, ids="-".join)
def test_everything_broken_is_seen(roles: tuple[str, ...], instance: Deployed) -> None:
    """All of some roles at once, in one audit: exactly the checks that were broken are red."""
    try:
        for role in roles:
            broken(instance, role, MUTATIONS[role])
        seen, odd = red(instance, roles)
        assert unlike(seen, set().union(*(expected(role, MUTATIONS[role]) for role in roles))) == set()
        assert odd == []
    finally:
        healed(instance, roles)


def test_every_role_is_broken_once() -> None:
    """No role is left out of the groups above."""
    assert sorted(role for roles in TOGETHER for role in roles) == sorted(MUTATIONS)


def waves(role: str) -> list[list[str]]:
    """The mutations of a role, in groups of which each check has one mutation at most."""
    found: list[list[str]] = []
    for names in MUTATIONS[role]:
        home = next((wave for wave in found if not any(_share(names, each) for each in wave)), None)
        if home is None:
            found.append(home := [])
        home.append(names)
    return found


def _share(one: str, other: str) -> bool:
    ours, theirs = set(one.split()), set(other.split())
    any_of = {check.removesuffix("[*]") for check in ours | theirs if check.endswith("[*]")}
    return bool(ours & theirs | {c.split("[")[0] for c in ours} & {c.split("[")[0] for c in theirs} & any_of)


@pytest.mark.long
@pytest.mark.parametrize(("role", "wave"), [(role, n) for role in MUTATIONS for n in range(len(waves(role)))], ids=str)
def test_each_breaks_its_own(role: str, wave: int, instance: Deployed) -> None:
    """One by one, with an audit after each: what it adds is exactly its own. Healed once a wave: a deploy for each of
    all would take an hour. That none hides another is what the waves are for."""
    wrong, before = [], set[str]()
    try:
        for mutation in waves(role)[wave]:
            broken(instance, role, [mutation])
            seen = red(instance, [role])[0]
            if odd := unlike(seen - before, expected(role, [mutation])) | (before - seen):
                wrong.append(f"{mutation}: {sorted(odd)}")
            before = seen
    finally:
        if wave and role in UNDO:
            instance.root(UNDO[role])
            assert red(instance, [role]) == (set(), [])
        else:
            healed(instance, [role])
    assert wrong == []
