"""From one version to the next and back while people read and post: nobody notices, and nothing is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.deployed import LIB, Deployed, files_of, wait_for, written
from tests.lab.labs import MakeLab
from tests.lab.load import load, posting
from tests.lab.older import (
    NEW,
    OLD,
    back_to_older,
    commands,
    deploy_older,
    journal,
    kill_group,
    serving,
    slots,
    start,
    wait_for_step,
)
from tests.lab.people import signed_in_owner

# As 4.6 makes it; the stand-in has no other servers' accounts.
KEYS = """CREATE TABLE keypairs (id bigserial PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, uri varchar NOT NULL UNIQUE, type integer NOT NULL,
  public_key varchar NOT NULL, revoked boolean NOT NULL DEFAULT false, created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL);
ALTER TABLE keypairs OWNER TO mastodon_owner; ALTER SEQUENCE keypairs_id_seq OWNER TO mastodon_owner;
INSERT INTO accounts (id, username, domain, public_key, created_at, updated_at)
  VALUES (41, 'far', 'world.test', '', now(), now());
INSERT INTO keypairs (account_id, uri, type, public_key, created_at, updated_at)
  VALUES (41, 'https://world.test/far#key', 0, 'its key', now(), now());"""
STEPS = (
    "install",
    "restore point before",
    "migrations before",
    "start",
    "web",
    "sidekiq",
    "streaming",
    "restore point after",
    "migrations after",
)


@pytest.fixture(scope="module")
def older(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """An instance that was never upgraded, in a lab of its own."""
    return deploy_older(make_lab, tmp_path_factory.mktemp("older"))


@pytest.fixture(scope="module")
def token(older: Deployed) -> Iterator[str]:
    """An access token of the owner, as a program on a telephone has it."""
    with signed_in_owner(older) as person:
        yield person.token(person.application("read write"))


def test_upgrade_and_back_while_people_read_and_post(older: Deployed, token: str) -> None:
    """What upgrade.md and rollback.md tell a person to type: held before the point of no return; back; all the way.
    Nobody waits and no post is lost."""
    upward, back = commands("upgrade.md"), commands("rollback.md")
    assert upward[0] == ["upgrade", "--plan"]
    files = files_of(older.machine())
    text = (older.directory / "instance.yaml").read_text()
    plan = json.loads(older.cli(*upward[0], "--json").stdout)
    assert written(files, files_of(older.machine())) == set()
    assert (older.directory / "instance.yaml").read_text() == text
    assert plan["problems"] == []
    assert [len(plan["before"]), len(plan["after"])] == [4, 1]
    assert plan["before"][0]["tables"]["accounts"] == int(older.sql("SELECT count(*) FROM accounts"))
    assert plan["no_return"] == "20260520093012_drop_user_agent_index"
    with load(older) as quiet, posting(older, token):
        time.sleep(10)  # the measure itself
    with load(older) as seen, posting(older, token) as posts:
        print(older.cli(*upward[1]).stdout)
        assert serving(older) == NEW
        assert older.deploy()["changes"] == []
        older.sql(KEYS)
        for words in back:
            print(older.cli(*words).stdout)
        assert serving(older) == OLD
        assert older.sql("SELECT public_key FROM accounts WHERE id = 41") == "its key\n"
        told = {line["step"]: line.get("told") for line in journal(older) if line["event"] == "end"}
        assert [told["keys before"], told["keys after"]] == [{"accounts": 1}, {"accounts": 0}]
        older.sql("UPDATE accounts SET public_key = '' WHERE id = 41")  # now it is the older release's own affair
        assert older.deploy()["changes"] == []
        older.sql("DROP TABLE keypairs; DELETE FROM accounts WHERE id = 41")
        for words in upward[2:]:
            print(older.cli(*words).stdout)
    slots(older, NEW)
    print(f"p99 {seen.percentile(0.99) / quiet.percentile(0.99):.1f} times that of before")
    assert seen.failed == []
    assert posts.failed == []
    assert posts.lost == []
    assert len(posts.acknowledged) > 50
    assert older.deploy()["changes"] == []
    assert older.sql("SELECT permissions, require_2fa FROM user_roles WHERE id = -99") == "0|t\n"
    assert (older.directory / "instance.yaml").read_text() == text.replace(f"release: {OLD}", f"release: {NEW}")
    assert older.sql("SELECT count(*) FROM schema_migrations WHERE version = '20260520093012'") == "1\n"
    assert [line["event"] for line in journal(older) if line["event"] not in ("start", "end")] == [
        "held",
        "closed",
        "closed",
    ]


@pytest.fixture
def upgraded(older: Deployed) -> Deployed:
    """The newer release serves, past the point of no return, also when this test runs alone."""
    older.cli("upgrade")
    return older


def test_after_the_point_of_no_return_rollback_counts_what_a_restore_would_lose(upgraded: Deployed, token: str) -> None:
    """It changes nothing, and names the mark before the last migrations."""
    older = upgraded
    with posting(older, token, rate=5) as posts:
        time.sleep(1)
    done = older.cli("rollback", check=False)
    told = json.loads(older.cli("rollback", "--plan", "--json").stdout)
    assert done.returncode == 1
    assert "20260520093012" in done.stderr
    assert "point of no return" in done.stderr
    assert told["point"]["name"] in done.stderr
    assert told["point"]["name"].startswith(f"before-post-{NEW}")
    made = older.sql("SELECT created_at FROM statuses").splitlines()
    since = told["point"]["time"].rstrip("Z").replace("T", " ")
    assert told["lost"]["posts"] == sum(when > since for when in made)
    assert told["lost"]["posts"] >= len(posts.acknowledged) > 0
    slots(older, NEW)


def test_versions_that_are_no_way(upgraded: Deployed) -> None:
    """A sentence each, exit 1, and nothing written: neither on the host nor in the file."""
    older = upgraded
    before, text = len(journal(older)), (older.directory / "instance.yaml").read_text()
    for version, said in (("9.9.9", "known are"), ("4.4.0", "is not known"), (OLD, "`mastodon-gov rollback`")):
        done = older.cli("upgrade", version, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert len(journal(older)) == before
    assert (older.directory / "instance.yaml").read_text() == text


@pytest.mark.parametrize(
    ("step", "then"),
    [
        pytest.param(step, then, marks=[] if (step, then) == ("web", "rollback") else pytest.mark.long)
        for step in STEPS
        for then in ("upgrade", "rollback")
    ],
)
def test_an_upgrade_killed_in_each_step(older: Deployed, step: str, then: str, tmp_path: Path) -> None:
    """The control node loses power, what runs on the host is killed too. `upgrade` finishes, `rollback` goes back."""
    back_to_older(older)
    if step == "install":
        older.root(f"rm -rf /opt/mastodon/releases/{NEW}-*")
    since = len(journal(older))
    with load(older) as seen:
        process = start(older, tmp_path / "log", "upgrade")
        wait_for_step(older, process, step, since)
        kill_group(process)
        # In brackets, so that the shell that kills is not killed.
        older.root("pkill -KILL -f '(journal[.]py step|slots[.]py settle|migrate[.]py|release_install[.]py)'; true")
        done = older.cli(then, check=False)
    print(done.stdout, done.stderr)
    assert seen.failed == []
    if done.returncode:
        # It may have come through the point of no return before it died.
        assert (step, then) == ("migrations after", "rollback")
        assert "point of no return" in done.stderr
    expected = NEW if then == "upgrade" or done.returncode else OLD
    slots(older, expected)
    assert serving(older) == expected
    if not done.returncode:
        assert older.deploy()["changes"] == []
        assert journal(older)[-1]["event"] == "closed"


@pytest.mark.long
@pytest.mark.parametrize("step", ["start", "web"])
def test_a_rollback_killed_and_gone_on_with(older: Deployed, step: str, tmp_path: Path) -> None:
    """`rollback` again leads where the first one wanted to go, before and after the older release serves."""
    back_to_older(older)
    older.cli("upgrade", "--hold")
    since = len(journal(older))
    with load(older) as seen:
        process = start(older, tmp_path / "log", "rollback")
        wait_for_step(older, process, step, since)
        kill_group(process)
        older.root("pkill -KILL -f '(journal[.]py step|slots[.]py settle)'; true")
        assert "`mastodon-gov rollback` finishes it" in older.cli("status", check=False).stdout
        older.cli("rollback")
    assert seen.failed == []
    slots(older, OLD)
    assert journal(older)[-1]["event"] == "closed"
    assert older.deploy()["changes"] == []


@pytest.mark.long
def test_a_release_that_has_nothing_to_migrate_at_the_end_is_held_and_closed(older: Deployed) -> None:
    """As from 4.5 to 4.6 of Mastodon: after `--hold` no step is left, and the way comes to its end all the same."""
    back_to_older(older)
    older.cli("upgrade", "--hold")
    files = older.root(f"ls /opt/mastodon/releases/{NEW}-*/db/post_migrate/*").split()
    older.root("mkdir -p /root/post && mv " + " ".join(files) + " /root/post")
    try:
        done = older.cli("upgrade")
    finally:
        older.root(f"mv /root/post/* {Path(files[0]).parent}")
    assert ": done," in done.stdout
    assert journal(older)[-1]["event"] == "closed"
    older.cli("status", check=False)
    assert json.loads(older.cli("upgrade", "--plan", "--json").stdout)["nothing"] is False


@pytest.mark.long
def test_a_drill_measures_the_migrations_of_a_release_that_waits(older: Deployed) -> None:
    """On its copy; the database that people use gets none of them."""
    if not older.root(f"ls -d /opt/mastodon/releases/{NEW}-*", check=False):
        older.cli("upgrade")
    back_to_older(older)
    done = older.sql("SELECT count(*) FROM schema_migrations")
    rehearsal = json.loads(older.cli("drill", "--json").stdout)["rehearsal"]
    assert rehearsal["release"].startswith(NEW)
    assert "failed" not in rehearsal
    assert json.loads(older.cli("upgrade", "--plan", "--json").stdout)["measured"] == rehearsal["seconds"] > 0
    assert older.sql("SELECT count(*) FROM schema_migrations") == done


def _refused(older: Deployed, *said: str) -> None:
    """An upgrade fails with these words, people are served by the older release all the time."""
    with load(older) as seen:
        done = older.cli("upgrade", check=False)
        print(done.stdout, done.stderr)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        for words in said:
            assert words in done.stderr
        assert serving(older) == OLD
    assert seen.failed == []


def _then_it_goes(older: Deployed) -> None:
    older.cli("upgrade")
    slots(older, NEW)
    assert older.deploy()["changes"] == []


@pytest.mark.long
def test_a_migration_that_fails(older: Deployed) -> None:
    """Its name and the database's words; mended, the same command goes on where it stopped."""
    back_to_older(older)
    older.sql("ALTER TABLE media_attachments ADD COLUMN thumbnail_storage_schema_version integer")
    _refused(older, "20260611150940 AddThumbnailSchemaVersionToMediaAttachments", "already exists")
    older.sql("ALTER TABLE media_attachments DROP COLUMN thumbnail_storage_schema_version")
    _then_it_goes(older)


@contextmanager
def _transaction(older: Deployed, begin: str) -> Iterator[None]:
    """Somebody's transaction that stays open. The server sleeps on when its client has gone, so it is ended by name."""
    asked = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sleeper' AND wait_event = 'PgSleep'"
    run = "systemd-run -q --collect -E PGAPPNAME=sleeper runuser -u postgres -- psql -qX -d mastodon_production"
    older.root(f"{run} -c '{begin}; SELECT pg_sleep(3600)'")
    try:
        wait_for(lambda: older.sql(asked).strip(), 60, "the transaction begins")
        yield
    finally:
        older.sql(asked.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))


# The shape of upstream's 20260303144409: no transaction, and an index whose building waits for every older one.
HALVES = """\
class AddLenderToMediaAttachments < ActiveRecord::Migration[7.2]
  disable_ddl_transaction!

  def change
    add_reference :media_attachments, :lender, index: false, foreign_key: { to_table: :accounts, on_delete: :nullify }
    add_index :media_attachments, [:lender_id, :id], algorithm: :concurrently, where: "lender_id IS NOT NULL"
  end
end
"""
MADE = """SELECT count(*) || ' ' || bool_and(indisvalid) FROM pg_index WHERE indrelid = 'media_attachments'::regclass
    AND pg_get_indexdef(indexrelid) LIKE '%lender_id%';
  SELECT count(*) FROM pg_constraint WHERE conrelid = 'media_attachments'::regclass AND contype = 'f'
    AND pg_get_constraintdef(oid) LIKE '%(lender_id)%';"""


@pytest.mark.long
def test_a_migration_without_a_transaction_goes_on_where_it_stopped(older: Deployed) -> None:
    """Somebody reads for long, so that its index gets no lock; what it had made by then is not in its way later."""
    if not older.root(f"ls -d /opt/mastodon/releases/{NEW}-*", check=False):
        older.cli("upgrade")  # so that the release lies on the host, whose migrations count
    back_to_older(older)
    file = f"$(echo /opt/mastodon/releases/{NEW}-*)/db/migrate/20260303144409_add_lender_to_media_attachments.rb"
    older.root(f"cat > {file}", stdin=HALVES)
    try:
        with _transaction(older, "BEGIN ISOLATION LEVEL REPEATABLE READ"):
            _refused(older, "got no lock in 6 tries", "sleeper, user postgres")
        _then_it_goes(older)
        assert older.sql(MADE).split() == ["1", "true", "1"]
    finally:
        older.root(f"rm -f {file}")
        older.sql("ALTER TABLE media_attachments DROP COLUMN IF EXISTS lender_id")
        older.sql("DELETE FROM schema_migrations WHERE version = '20260303144409'")


@pytest.mark.long
def test_a_migration_that_waits_for_a_lock(older: Deployed) -> None:
    """Somebody holds a table that the migrations change; readers do not wait behind it for more than the timeout."""
    back_to_older(older)
    with _transaction(older, "BEGIN; LOCK TABLE user_roles IN ACCESS SHARE MODE"):
        _refused(older, "got no lock in 6 tries", "sleeper, user postgres")
    _then_it_goes(older)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["web", "sidekiq"])
def test_a_new_slot_that_never_gets_ready(older: Deployed, kind: str) -> None:
    """All of the new slot goes away again; the old one was told nothing."""
    back_to_older(older)
    place = f"/run/systemd/system/mastodon-{kind}@b.service.d"
    other = older.root("readlink /opt/mastodon/active").strip()[-1]
    place = place.replace("@b", "@a" if other == "b" else "@b")
    older.root(f"mkdir -p {place}; cat > {place}/99-broken.conf", stdin="[Service]\nExecStart=\nExecStart=/bin/false\n")
    try:
        _refused(older, f"mastodon-{kind}@", "did not become ready; the old slot still runs")
    finally:
        older.root(f"rm -r {place}; systemctl daemon-reload")
    _then_it_goes(older)


@pytest.mark.long
def test_a_sidekiq_that_does_not_end(older: Deployed) -> None:
    """It is killed in time, and the journal and the last lines say so."""
    back_to_older(older)
    place = "/run/systemd/system/mastodon-sidekiq@.service.d"
    older.root(
        f"mkdir -p {place}; cat > {place}/99-slow.conf", stdin="[Service]\nExecStop=/bin/sleep 900\nTimeoutStopSec=5\n"
    )
    try:
        older.root("systemctl daemon-reload")
        done = older.cli("upgrade")
    finally:
        older.root(f"rm -r {place}; systemctl daemon-reload")
    assert "did not end by itself in time and was killed" in done.stdout
    assert serving(older) == NEW


@pytest.mark.long
def test_two_upgrades_at_once(older: Deployed, tmp_path: Path) -> None:
    """The second says who is at work, and leaves the file alone; the first one comes through."""
    back_to_older(older)
    since = len(journal(older))
    process = start(older, tmp_path / "log", "upgrade")
    wait_for_step(older, process, "migrations before", since)
    for words in (("upgrade",), ("rollback",)):
        done = older.cli(*words, check=False)
        assert done.returncode == 1
        assert "Another deploy or upgrade is running" in done.stderr
    assert process.wait(900) == 0
    slots(older, NEW)


def replace_files(older: Deployed) -> None:
    """What a security upgrade of Debian does to processes that run: a library of Ruby's, and nginx itself."""
    for file in ("/usr/lib/x86_64-linux-gnu/libyaml-0.so.2", "/usr/sbin/nginx"):
        older.root(f"p=$(readlink -f {file}) && cp -a $p /root/new && mv /root/new $p")


def _night(older: Deployed) -> None:
    """Debian's own unit, to its end. Nobody waits for it with `systemctl`, because systemd itself is begun anew."""
    unit, ended = "apt-daily-upgrade.service", "systemctl show -P InactiveEnterTimestampMonotonic"
    before = older.root(f"{ended} {unit}")
    older.root(f"systemctl start --no-block {unit}")
    wait_for(lambda: older.root(f"{ended} {unit}", check=False) not in ("", before), 600, "the night's upgrades")
    assert older.root(f"systemctl show -P Result {unit}").strip() == "success"


def test_after_the_nightly_upgrades_what_runs_with_old_libraries_is_started_anew(older: Deployed) -> None:
    """By Debian's own unit; nothing else is restarted, and a second night does nothing."""
    replace_files(older)
    since = older.root("systemctl show -P ActiveEnterTimestamp postgresql@17-main redis-server")
    active = older.root("readlink /opt/mastodon/active")
    with load(older) as people:
        _night(older)
    assert people.failed == []
    assert older.root("readlink /opt/mastodon/active") != active
    assert not any(
        unit.startswith("mastodon-") for unit in json.loads(older.root(f"{LIB}/maintain.py look"))["outdated"]
    )
    _night(older)
    slots(older, serving(older))
    assert older.root("systemctl show -P ActiveEnterTimestamp postgresql@17-main redis-server") == since


def test_maintenance_starts_anew_what_runs_with_old_libraries(older: Deployed) -> None:
    """What maintain.md tells a person to type, with files that were replaced under running processes."""
    replace_files(older)
    plan, work = commands("maintain.md")
    seen = json.loads(older.cli(*plan, "--json").stdout)
    assert any(unit.startswith("mastodon-web@") for unit in seen["outdated"])
    assert "nginx.service" in seen["outdated"]
    main = "systemctl show -P MainPID nginx.service"
    before = older.root(main)
    with load(older) as people:
        told = json.loads(older.cli(*work, "--json", timeout=1500).stdout)
    print(told)
    assert people.failed == []
    assert not any(unit.startswith(("mastodon-", "nginx")) for unit in told["left"])
    assert older.root(main) != before
    assert older.deploy()["changes"] == []


@pytest.mark.long
def test_maintenance_reboots_when_that_is_due(older: Deployed) -> None:
    """And waits until all is well again; with --no-reboot it only says so."""
    older.root("touch /run/reboot-required")
    leader = older.machine().leader
    assert "a reboot is due: a package asked for it" in older.cli("maintain", "--no-reboot", timeout=1500).stdout
    assert older.machine().leader == leader
    told = json.loads(older.cli("maintain", "--json", timeout=1500).stdout)
    assert told["rebooted"]
    assert older.machine().leader != leader
    older.cli("status")
    assert older.deploy()["changes"] == []
