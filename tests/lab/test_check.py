"""The verb `check` against real machines: each thing that stands against a deploy, made true and mended again.

Every case asserts three things: `check` fails in exactly its row, `deploy` exits 1 with that sentence, and the
machine's files are the same before and after both.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov import secrets
from mastodon_gov.check import examine, refuse_unfit
from mastodon_gov.errors import Refusal
from mastodon_gov.lab.demo import REPOSITORY, bring_up, machines
from mastodon_gov.lab.world.build import build_world
from mastodon_gov.lab.world.mail import read_mail, set_mode
from mastodon_gov.lab.world.services import NAMES
from tests.lab.deployed import Deployed, copy_instance, files_of, wait_for, written
from tests.lab.labs import MakeLab


@pytest.fixture(scope="module")
def bare(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """World and a machine after its first contact; nothing of ours is on it yet."""
    lab = make_lab("check", [spec for spec in machines() if spec.name != "outside"])
    return Deployed(bring_up(lab, copy_instance(tmp_path_factory.mktemp("check")), print))


def _checked(at: Deployed) -> tuple[int, dict[str, Any]]:
    done = at.cli("check", "--json", check=False)
    return done.returncode, json.loads(done.stdout)


def _failing(told: dict[str, Any]) -> set[str]:
    return {each["id"] for each in told["findings"] if each["state"] != "ok"}


def test_a_machine_that_is_fit_passes_and_is_not_touched(bare: Deployed) -> None:
    bare.root("rm -rf /var/lib/apt/lists/*")  # as on many a new host
    before = files_of(bare.machine())
    code, told = _checked(bare)
    assert written(before, files_of(bare.machine())) == set()
    assert (code, _failing(told), told["ok"]) == (0, set(), True)
    assert len(told["findings"]) == 17


def _other_system(at: Deployed) -> Iterator[None]:
    at.root("sed -i s/VERSION_ID=.13./VERSION_ID=12/ /usr/lib/os-release")
    yield
    at.root("sed -i s/VERSION_ID=12/VERSION_ID='\"13\"'/ /usr/lib/os-release")


def _small_disk(at: Deployed) -> Iterator[None]:
    at.root("mount -t tmpfs -o size=64m tmpfs /opt")
    yield
    at.root("umount /opt")


def _port_taken(at: Deployed) -> Iterator[None]:
    at.root("systemd-run -q --unit=stranger --working-directory=/mnt python3 -m http.server 80")
    wait_for(lambda: at.root("ss -Hltn 'sport = :80'"), 30, "the stranger listens")
    yield
    at.root("systemctl stop stranger")


def _other_resolver(at: Deployed) -> Iterator[None]:
    at.root("echo nameserver 192.0.2.53 >> /etc/resolv.conf")
    yield
    at.root("sed -i /192.0.2.53/d /etc/resolv.conf")


def _name_missing(at: Deployed) -> Iterator[None]:
    build_world(at.demo.lab, names=NAMES | {"social": ("social.agency.test",)})
    yield
    build_world(at.demo.lab)


def _relay_refuses(at: Deployed) -> Iterator[None]:
    set_mode(at.demo.lab, "refuse")
    yield
    set_mode(at.demo.lab, "accept")


def _other_secrets(at: Deployed, wrong: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[Path]:
    """The same instance with other secrets."""
    other = at.directory.with_name("other")
    shutil.copytree(at.directory, other)
    values = secrets.store.read_values(other, other / "identity.txt")
    secrets.store.write(other, values | wrong(values))
    yield other
    shutil.rmtree(other)


def _key_without_rights(at: Deployed) -> Iterator[Path]:
    """An instance that has mixed up two keys: what it takes for the owner's may make no bucket."""
    pairs = (("owner", "media"), ("media", "owner"))
    parts = ("access_key", "secret_key")
    names = [(f"object_storage.{n}.{part}", f"object_storage.{of}.{part}") for n, of in pairs for part in parts]
    return _other_secrets(at, lambda values: {name: values[of] for name, of in names})


def _wrong_media_key(at: Deployed) -> Iterator[Path]:
    return _other_secrets(at, lambda _: {"object_storage.media.access_key": "NOBODYHASTHISKEY0815"})


def _wrong_backups_key(at: Deployed) -> Iterator[Path]:
    return _other_secrets(
        at, lambda _: {"object_storage.backups.secret_key": "notthesecretofthiskey0815notthesecret0815"}
    )


def _foreign_mastodon(at: Deployed) -> Iterator[None]:
    at.root("mkdir -p /home/mastodon/live")
    yield
    at.root("rm -r /home/mastodon")


@contextmanager
def _cluster(at: Deployed, tables: str) -> Iterator[None]:
    """A cluster as Debian makes one, with a database of this name."""
    at.root("pg_createcluster 17 main --locale C.UTF-8 && systemctl start postgresql@17-main")
    at.root("runuser -u postgres -- createdb mastodon_production")
    at.sql(tables)
    try:
        yield
    finally:
        at.root("pg_dropcluster --stop 17 main")


FOREIGN = "CREATE TABLE users (id bigint); CREATE TABLE schema_migrations (version text)"
NEWER = "CREATE SCHEMA gov; INSERT INTO schema_migrations VALUES ('20991231000000')"


def _foreign_database(at: Deployed) -> Iterator[None]:
    with _cluster(at, FOREIGN):
        yield


def _newer_database(at: Deployed) -> Iterator[None]:
    with _cluster(at, f"{FOREIGN}; {NEWER}"):
        yield


CASES: dict[str, tuple[Callable[[Deployed], Iterator[Path | None]], str, str]] = {
    "wrong operating system": (_other_system, "operating system", "Debian 13"),
    "disk too small": (_small_disk, "disk", "/opt"),
    "port 80 taken": (_port_taken, "ports", "stranger.service"),
    "another resolver": (_other_resolver, "resolvers", "192.0.2.53; allowed is"),
    "name missing in DNS": (_name_missing, "public names", "files.social.agency.test"),
    "key without rights": (_key_without_rights, "object storage rights", "object_storage.owner"),
    "wrong media key": (_wrong_media_key, "object storage rights", "not know the access key of object_storage.media"),
    "wrong backups key": (_wrong_backups_key, "object storage rights", "the secret key of object_storage.backups"),
    "mail relay refuses": (_relay_refuses, "mail relay", "550"),
    "foreign Mastodon": (_foreign_mastodon, "mastodon", "/home/mastodon/live"),
    "foreign database": (_foreign_database, "database", "tables that we did not make"),
    "newer database": (_newer_database, "database", "20991231000000"),
}


def _without_sizes(sentences: list[str]) -> list[str]:
    return [re.sub(r"[0-9.]+ GiB", "GiB", sentence) for sentence in sentences]


@pytest.mark.parametrize("case", CASES)
def test_each_bad_day_fails_in_its_own_row_and_deploy_changes_nothing(bare: Deployed, case: str) -> None:
    breaking, row, said = CASES[case]
    running = breaking(bare)
    directory = next(running)
    try:
        at = bare if directory is None else Deployed(replace(bare.demo, directory=directory))
        before = files_of(bare.machine())
        code, told = _checked(at)
        deploy = at.cli("deploy", check=False)
        changed = written(before, files_of(bare.machine()))
    finally:
        next(running, None)
    assert changed == set()
    assert (code, _failing(told)) == (1, {row})
    sentences = [each["sentence"] for each in told["findings"] if each["state"] != "ok"]
    assert said in "\n".join(sentences)
    assert deploy.returncode == 1
    # Other tests fill and empty the same disk meanwhile.
    assert _without_sizes(deploy.stderr.splitlines()[: len(sentences)]) == _without_sizes(sentences)


def test_a_clock_that_is_wrong_by_an_hour_is_refused_with_the_offset_injected(bare: Deployed) -> None:
    before = files_of(bare.machine())
    found = examine(bare.directory, everything=True, offset=-3600)
    with pytest.raises(Refusal, match="3600 s behind this machine"):
        refuse_unfit(bare.directory, offset=-3600)
    assert {each.id for each in found if not each.lets_begin} == {"clock"}
    assert written(before, files_of(bare.machine())) == set()


def test_a_host_that_does_not_answer_is_not_fit(bare: Deployed) -> None:
    bare.demo.lab.cut("social")
    try:
        code, told = _checked(bare)
        others = {verb: bare.cli(verb, "--json", check=False) for verb in ("plan", "deploy", "status")}
    finally:
        bare.demo.lab.heal()
    assert code == 4
    assert [each["state"] for each in told["findings"] if each["host"] == "social"] == ["could not look"]
    for verb, done in others.items():
        assert (verb, done.returncode) == (verb, 4), done.stderr
        assert json.loads(done.stdout)["refused"] == done.stderr.splitlines()


def test_a_message_goes_to_the_owner_only_when_asked(bare: Deployed) -> None:
    before = len(read_mail(bare.demo.lab))
    bare.cli("check")
    assert len(read_mail(bare.demo.lab)) == before
    bare.cli("check", "--send-mail")
    (message,) = wait_for(lambda: read_mail(bare.demo.lab)[before:], 20, "the message")
    assert message["To"] == "owner@agency.test"


def test_what_was_broken_is_mended_and_the_table_says_so(bare: Deployed) -> None:
    done = bare.cli("check")
    assert "! " not in done.stdout
    assert "mail relay" in done.stdout


def test_pyinfra_alone_never_touches_a_foreign_database(bare: Deployed) -> None:
    """Last: what stands before the role in deploy.py is settled by then."""
    database = "/etc/postgresql", "/usr/lib/postgresql", "/etc/systemd/system/postgresql"
    with _cluster(bare, FOREIGN):
        before = files_of(bare.machine())
        words = [sys.executable, "-m", "pyinfra", str(bare.directory / "inventory.py"), "deploy.py", "-y"]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        after = files_of(bare.machine())
        roles = bare.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'mastodon'")
        tables = bare.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    assert {k: v for k, v in after.items() if k.startswith(database)} == {
        k: v for k, v in before.items() if k.startswith(database)
    }
    assert (roles, tables) == ("0\n", "2\n")
    assert "tables that we did not make" in done.stdout + done.stderr
