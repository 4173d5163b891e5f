"""Buckets, backups and mail against real servers: radosgw, OpenSMTPD, PostgreSQL with pgBackRest under systemd."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Secrets
from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.lab.world import WORLD_PACKAGES, build_world
from mastodon_gov.lab.world.mail import read_mail, set_mode, text_of
from mastodon_gov.relay import relay_findings
from mastodon_gov.storage import buckets as s3
from mastodon_gov.storage.client import connect, reached
from mastodon_gov.storage.rights import rights
from mastodon_gov.storage.settings import ACCESS_BLOCK, Action, lifecycle, policy, wanted
from tests.lab.conftest import MakeLab
from tests.lab.storage_place import Place, changed, run_roles, stopped, until
from tests.unit.storage_sample import CIPHER, instance, storage

HOST_PACKAGES = ("postgresql-17", "postgresql-client-17", "pgbackrest", "msmtp-mta", "python3")
REPOSITORY = "Backups | Make the repository and the first backup"
STATUS, POINT = (f"/usr/local/lib/mastodon-gov/{name}" for name in ("backup-status", "restore-point"))


@pytest.fixture(scope="module")
def bare(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The servers, and a host with packages but without a database."""
    world = MachineSpec("world", layer_packages=WORLD_PACKAGES)
    lab = make_lab("storage", [world, MachineSpec("social", layer_packages=HOST_PACKAGES, dns=("world",))])
    facts = build_world(lab, say=print)
    host = lab.machine("social")
    host.ssh("pg_dropcluster --stop 17 main")
    trust = "/usr/local/share/ca-certificates/lab.crt"
    host.ssh(f"cat > {trust} && update-ca-certificates", stdin=facts.bundle.read_text())
    return Place(lab, facts, tmp_path_factory.mktemp("storage") / "told.json")


@dataclass(frozen=True)
class Deployed:
    """What the first runs did."""

    rights_before: list[str]
    planned: list[str]
    buckets_after_plan: list[str]
    first: list[str]
    second: list[str]


@pytest.fixture(scope="module")
def first(bare: Place) -> Deployed:
    """Preflight, plan, deploy, deploy."""
    before = rights(bare.instance(), bare.secrets())
    plan, _ = run_roles(bare, "--dry")
    with reached(bare.instance()):
        seen = [each["Name"] for each in bare.client("owner").list_buckets()["Buckets"]]
    one, log = run_roles(bare)
    assert one, log
    two, _ = run_roles(bare)
    planned = [each["name"] for each in plan["plan"] if each["hosts_with_change"]]
    return Deployed(before, planned, seen, changed(one), changed(two))


@pytest.fixture(scope="module")
def place(bare: Place, first: Deployed) -> Place:
    """Everything deployed."""
    assert REPOSITORY in first.first
    return bare


# --- Deploy -----------------------------------------------------------------------------------------------------


def test_preflight_leaves_nothing_and_plan_writes_nothing(first: Deployed) -> None:
    assert first.rights_before == []
    assert {"Object storage | Settle buckets", REPOSITORY, "Mail | Write files"} <= set(first.planned)
    assert first.buckets_after_plan == []


def test_the_first_run_does_it_and_the_second_nothing(first: Deployed) -> None:
    assert {"Object storage | Settle buckets", REPOSITORY, "Mail | Write files"} <= set(first.first)
    assert first.second == []


# --- Buckets ----------------------------------------------------------------------------------------------------

BUCKETS = {bucket.name: bucket for bucket in wanted(instance(object_storage=storage(backup_lock_days=1)))}
USERS = {"media": instance().object_storage.media_user, "backups": instance().object_storage.backup_user}


def listed(bucket: str) -> Action:
    """A policy that shows everybody what is there."""
    arn = [f"arn:aws:s3:::{bucket}"]
    listing = {"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket"], "Resource": arn}
    mine = BUCKETS[bucket].statements
    return Action(bucket, "policy", {"Version": "2012-10-17", "Statement": [*mine, listing]}, "")


@contextmanager
def broken(at: Place, *actions: Action) -> Iterator[None]:
    """Change settings with the owner's key; afterwards everything is settled again, and proved to be."""
    owner = at.secrets().object_storage.owner
    with reached(at.instance()):
        for action in actions:
            s3.apply(at.client("owner"), "us-east-1", action)
    try:
        yield
    finally:
        for bucket, left in s3.pending(at.instance(), owner):
            s3.settle(at.instance(), owner, bucket, left)
        assert s3.pending(at.instance(), owner) == []


NOT_BLOCKED = {**ACCESS_BLOCK, "IgnorePublicAcls": False}
SHORT = {**lifecycle(BUCKETS["backups"]), "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}


@pytest.mark.parametrize(
    ("action", "setting"),
    [
        (Action("media", "versioning", "Suspended", ""), "versioning"),
        (listed("media"), "policy"),
        (Action("backups", "lifecycle", SHORT, ""), "lifecycle"),
        (listed("backups"), "policy"),
        (
            Action("media", "access_block", NOT_BLOCKED, ""),
            "access_block",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.bucket,
)
def test_each_drift_is_seen_and_mended(place: Place, action: Action, setting: str) -> None:
    with broken(place, action):
        plans = s3.pending(place.instance(), place.secrets().object_storage.owner)
        assert [(bucket.name, [a.setting for a in left]) for bucket, left in plans] == [(action.bucket, [setting])]


def test_a_shorter_lock_is_refused_and_nothing_changes(place: Place) -> None:
    longer = Action("locked-longer", "lock", 3, "")
    with reached(place.instance()):
        owner = place.client("owner")
        s3.apply(owner, "us-east-1", Action("locked-longer", "create", True, ""))
        s3.apply(owner, "us-east-1", longer)
    at = place.instance(
        object_storage=storage(endpoint=place.world.endpoint, backup_lock_days=1, backup_bucket="locked-longer")
    )
    with pytest.raises(Refusal, match="locks objects for 3 days; a lock is never shortened"):
        s3.pending(at, place.secrets().object_storage.owner)
    with reached(place.instance()):
        assert s3.read(place.client("owner"), "locked-longer").lock_days == 3


def test_a_bucket_without_lock_is_refused(place: Place) -> None:
    with reached(place.instance()):
        s3.apply(place.client("owner"), "us-east-1", Action("no-lock", "create", False, ""))
    at = place.instance(object_storage=storage(endpoint=place.world.endpoint, backup_bucket="no-lock"))
    with pytest.raises(Refusal, match=r"Bucket no-lock .* was made without object lock"):
        s3.pending(at, place.secrets().object_storage.owner)


def test_a_service_that_forgets_what_it_took_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "SETTLE", 0.1)
    owner = place.secrets().object_storage.owner
    with broken(place, Action("media", "versioning", "Suspended", "")):
        ((bucket, actions),) = s3.pending(place.instance(), owner)
        with monkeypatch.context() as patch:
            patch.setattr(s3, "apply", lambda *_: None)
            with pytest.raises(Refusal, match="does not keep them: bucket media does not keep old versions"):
                s3.settle(place.instance(), owner, bucket, actions)


def test_a_key_without_rights_is_named_with_the_right(place: Place) -> None:
    with pytest.raises(Refusal) as refusal:
        s3.pending(place.instance(), place.secrets().object_storage.media)
    assert str(refusal.value).startswith("object_storage.owner in the secrets lacks the right s3:")
    assert place.secrets().object_storage.media.access_key.get_secret_value() not in str(refusal.value)


@pytest.mark.parametrize(
    ("part", "expected"),
    [("access_key", "does not know the access key of object_storage.media"), ("secret_key", "refuses the secret key")],
)
def test_a_wrong_key_is_named(place: Place, part: str, expected: str) -> None:
    keys = place.secret_values()["object_storage"]
    keys["media"] = {**keys["media"], part: "wrong0123456789"}
    (sentence,) = rights(place.instance(), place.secrets(object_storage=keys))
    assert expected in sentence
    assert "wrong0123456789" not in sentence


def granted(bucket: str, user: str, action: str) -> Action:
    """The right policy with one right too many."""
    both = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    extra = {"Effect": "Allow", "Principal": {"AWS": [user]}, "Action": [action], "Resource": both}
    return Action(bucket, "policy", {**policy(BUCKETS[bucket]), "Statement": [*BUCKETS[bucket].statements, extra]}, "")


def without(bucket: str, number: int) -> Action:
    """The right policy without one of its statements."""
    left = [each for at, each in enumerate(BUCKETS[bucket].statements) if at != number]
    return Action(bucket, "policy", {**policy(BUCKETS[bucket]), "Statement": left}, "")


ANYBODY, MEDIA_KEY, BACKUPS_KEY = "Anybody, without a key,", "object_storage.media", "object_storage.backups"
RIGHTS = [
    (listed("media"), {f"{ANYBODY} can list the bucket", f"{BACKUPS_KEY} in the secrets can list the bucket of the"}),
    (listed("backups"), {f"{ANYBODY} can list the bucket", f"{MEDIA_KEY} in the secrets can list the bucket of the"}),
    (without("media", 0), {f"{ANYBODY} may not read an object"}),
    (without("media", 1), {f"{ANYBODY} can read an archive"}),
    (granted("media", USERS["media"], "s3:DeleteObjectVersion"), {f"{MEDIA_KEY} in the secrets can destroy versions"}),
    (granted("media", USERS["media"], "s3:PutBucketPolicy"), {f"{MEDIA_KEY} in the secrets can change the policy"}),
    (granted("media", USERS["backups"], "s3:ListBucket"), {f"{BACKUPS_KEY} in the secrets can list the bucket of the"}),
    (granted("backups", USERS["backups"], "s3:DeleteObjectVersion"), {f"{BACKUPS_KEY} in the secrets can destroy"}),
    (granted("backups", USERS["backups"], "s3:PutLifecycleConfiguration"), {"can change the rules for old versions"}),
    (granted("backups", USERS["media"], "s3:ListBucket"), {f"{MEDIA_KEY} in the secrets can list the bucket of the"}),
    (without("backups", 0), {"may not list the bucket", "may not hide objects"}),
]


@pytest.mark.parametrize(("action", "expected"), RIGHTS)
def test_every_right_too_many_or_too_few_is_found(place: Place, action: Action, expected: set[str]) -> None:
    with broken(place, action):
        found = rights(place.instance(), place.secrets())
    assert {part for part in expected if any(part in sentence for sentence in found)} == expected, found
    assert len(found) == len(expected), found


def test_the_right_rights_are_right_and_the_probes_leave_nothing_behind(place: Place) -> None:
    assert rights(place.instance(), place.secrets()) == []
    with reached(place.instance()):
        owner = place.client("owner")
        assert not [each for each in owner.list_buckets()["Buckets"] if each["Name"].startswith("mfg-probe")]
        for bucket in ("media", "backups"):
            listed = owner.list_object_versions(Bucket=bucket)
            keys = {each["Key"] for kind in ("Versions", "DeleteMarkers") for each in listed.get(kind, [])}
            assert not [key for key in keys if "mfg-probe" in key]
            assert owner.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_access_lists_of_objects_open_nothing(place: Place) -> None:
    with reached(place.instance()):
        place.client("backups").put_object(Bucket="backups", Key="opened", Body=b"x", ACL="public-read")
        with pytest.raises(ClientError, match="AccessDenied"):
            connect(place.instance(), None, str(place.world.bundle)).get_object(Bucket="backups", Key="opened")


def test_not_even_the_owner_destroys_a_backup(place: Place) -> None:
    with reached(place.instance()):
        owner = place.client("owner")
        version = owner.list_object_versions(Bucket="backups", Prefix="pg/")["Versions"][0]
        with pytest.raises(ClientError, match="AccessDenied"):
            owner.delete_object(Bucket="backups", Key=version["Key"], VersionId=version["VersionId"])


# --- Backups ----------------------------------------------------------------------------------------------------


def status(at: Place) -> dict[str, Any]:
    """What the host says of its backups."""
    said: dict[str, Any] = json.loads(at.host.ssh([STATUS]).stdout)
    return said


def test_the_first_day_has_a_full_backup(place: Place) -> None:
    said = status(place)
    assert said["problems"] == []
    assert (said["backups"], said["repository"]["code"], said["archiver"]["mode"]) == (1, 0, "on")
    assert 0 <= said["last_full_age"] < 3600


def test_what_lies_in_the_bucket_is_encrypted(place: Place) -> None:
    with reached(place.instance()):
        writer = place.client("backups")  # the owner of the bucket may not read what others put there
        listed = [each["Key"] for each in writer.list_objects_v2(Bucket="backups", Prefix="pg/")["Contents"]]
        bodies = {key: writer.get_object(Bucket="backups", Key=key)["Body"].read() for key in listed}
    assert {body[:8] for key, body in bodies.items() if key.endswith(".info")} == {b"Salted__"}
    zstd, names = b"\x28\xb5\x2f\xfd", (b"PG_VERSION", b"backrest-version", b"pg_catalog")
    assert [key for key, body in bodies.items() if body.startswith(zstd) or any(name in body for name in names)] == []


def test_the_passphrase_is_nowhere_but_in_its_file(place: Place) -> None:
    found = place.host.ssh(
        "cat > /run/known; grep -rlFf /run/known /etc /var/log /var/spool /run /tmp --exclude=known; true", stdin=CIPHER
    )
    assert found.stdout.split() == ["/etc/pgbackrest.conf"]
    shown = place.host.ssh("stat -c '%U %G %a' /etc/pgbackrest.conf; rm /run/known").stdout
    assert shown.split() == ["root", "postgres", "640"]


def test_a_restore_point_is_archived(place: Place) -> None:
    said = json.loads(place.host.ssh([POINT, "before_upgrade"]).stdout)
    assert said["name"] == "before_upgrade"
    assert said["archived"] is True
    listed = place.host.ssh(
        "runuser -u postgres -- pgbackrest --stanza=social --repo=1 repo-ls --recurse archive/social"
    ).stdout
    assert said["wal"] in listed
    wal = f"/tmp/{said['wal']}"
    dump = f"pgbackrest --stanza=social archive-get {said['wal']} {wal} && /usr/lib/postgresql/17/bin/pg_waldump {wal}"
    assert (
        "RESTORE_POINT before_upgrade"
        in place.host.ssh(f"cd / && runuser -u postgres -- sh -c '{dump}; rm {wal}'").stdout
    )


@pytest.mark.parametrize("name", ["", "a b", "x'); drop table users; --", "n" * 64])
def test_a_wrong_name_of_a_restore_point_is_refused(place: Place, name: str) -> None:
    said = place.host.ssh([POINT, name], check=False)
    assert said.returncode == 1
    assert "is no name for a restore point" in said.stderr


def test_the_nightly_unit_is_boxed_in(place: Place) -> None:
    score = place.host.ssh("systemd-analyze security mfg-backup.service --no-pager | tail -1").stdout
    assert float(score.split("level for mfg-backup.service:")[1].split()[0]) < 2
    assert "02:30:00 UTC" in place.host.ssh("systemctl show -p TimersCalendar mfg-backup.timer").stdout


def test_a_changed_unit_is_known_to_systemd_after_a_deploy(place: Place) -> None:
    place.host.ssh("echo '# changed' >> /etc/systemd/system/mfg-backup.service")
    assert changed(run_roles(place)[0])
    assert place.host.ssh("systemctl show -p NeedDaemonReload --value mfg-backup.service").stdout.strip() == "no"


def test_a_wrong_passphrase_is_refused_with_its_name(place: Place) -> None:
    _, log = run_roles(place, secret_changes={"backups": {"cipher_pass": "another"}})
    assert "cannot be read with backups.cipher_pass of the secrets" in log
    assert "another passphrase" in log
    assert changed(run_roles(place)[0]) == ["Backups | Write files"]
    assert status(place)["problems"] == []


def test_storage_that_is_away_is_a_sentence_everywhere(place: Place) -> None:
    with stopped(place.lab.machine("world"), "nginx"):
        begun = time.monotonic()
        with pytest.raises(Refusal, match=r"s3.world.test \(object_storage.endpoint\) does not answer"):
            s3.pending(place.instance(), place.secrets().object_storage.owner)
        (sentence,) = rights(place.instance(), place.secrets())
        assert time.monotonic() - begun < 30
        _, log = run_roles(place)
        assert "does not answer" in log
        assert status(place)["repository"]["code"] != 0
        place.host.ssh("cd / && runuser -u postgres -- psql -qXAt -c 'select pg_switch_wal()'")
        assert status(place)["archiver"]["ready"] > 0
    until(lambda: status(place)["archiver"]["ready"] == 0, 120)
    assert "does not answer" in sentence


def test_storage_that_hangs_is_a_sentence_in_time(place: Place) -> None:
    world = place.lab.machine("world")
    world.freeze()
    try:
        begun = time.monotonic()
        with pytest.raises(Refusal, match="does not answer"):
            s3.pending(place.instance(), place.secrets().object_storage.owner)
        assert time.monotonic() - begun < 15
    finally:
        world.thaw()


# --- Mail -------------------------------------------------------------------------------------------------------


def from_host(at: Place) -> Callable[[Sequence[str], str], str]:
    """Run the probe on the host."""
    return lambda command, given: at.host.ssh(list(command), stdin=given).stdout


def findings(at: Place, *, send: bool = False, secrets: Secrets | None = None, **changes: Any) -> list[str]:
    """What `check` says, seen from the host."""
    return relay_findings(at.instance(**changes), secrets or at.secrets(), send=send, run=from_host(at))


def test_the_relay_is_tried_and_a_message_arrives_only_when_asked(place: Place) -> None:
    before = len(read_mail(place.lab))
    assert findings(place) == []
    assert len(read_mail(place.lab)) == before
    assert findings(place, send=True) == []
    message = until(lambda: read_mail(place.lab)[before:], 20)[0]
    assert message["To"] == "owner@agency.test"


def test_what_a_relay_refuses_is_named(place: Place) -> None:
    wrong = {"login": "social", "password": "wrong-0815"}
    (sentence,) = findings(place, secrets=place.secrets(mail=wrong))
    assert "refuses to sign us in: 535" in sentence
    assert "wrong-0815" not in sentence
    other = {"relay": "council.test", "from_address": "social@agency.test"}
    (sentence,) = findings(place, mail=other)
    assert "council.test port 587 (mail.relay) shows a certificate that is not trusted: Hostname mismatch" in sentence
    set_mode(place.lab, "refuse")
    try:
        refused = "refuses mail to owner@agency.test (owner.address): 550"
        until(lambda: [sentence for sentence in findings(place) if refused in sentence], 10)
    finally:
        set_mode(place.lab, "accept")


def test_a_relay_that_is_away_is_named(place: Place) -> None:
    with stopped(place.lab.machine("world"), "opensmtpd"):
        (sentence,) = findings(place)
    assert "mail.world.test port 587 (mail.relay) cannot be reached: Connection refused" in sentence


def test_root_s_mail_reaches_the_owner_from_the_right_sender(place: Place) -> None:
    before = len(read_mail(place.lab))
    place.host.ssh("printf 'Subject: disk full\\n\\nhelp\\n' | /usr/sbin/sendmail root")
    message = until(lambda: read_mail(place.lab)[before:], 20)[0]
    assert "social@agency.test" in message["From"]
    assert "help" in text_of(message)
    assert "owner@agency.test" in str(message["X-Original-To"] or message["Delivered-To"] or message.as_string())


def test_a_failed_backup_tells_the_owner(place: Place) -> None:
    before = len(read_mail(place.lab))
    with stopped(place.host, "postgresql@17-main.service"):
        place.host.ssh("systemctl start mfg-backup.service", check=False)
        message = until(lambda: read_mail(place.lab)[before:], 20)[0]
    assert message["Subject"] == "[social.agency.test] mfg-backup.service has failed"


def test_nothing_listens_for_mail_and_the_password_is_root_s_own(place: Place) -> None:
    assert ":25 " not in place.host.ssh("ss -ltnH").stdout
    assert place.host.ssh("stat -c '%U %G %a' /etc/msmtprc").stdout.split() == ["root", "root", "600"]
    assert place.host.ssh("runuser -u postgres -- cat /etc/msmtprc", check=False).returncode != 0


def test_mail_to_a_relay_that_nobody_vouches_for_is_not_sent(place: Place) -> None:
    before = len(read_mail(place.lab))
    trust = "/etc/ssl/certs/ca-certificates.crt"
    other = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other -keyout /dev/null"
    place.host.ssh(f"cp -p {trust} {trust}.kept && {other} -out {trust}")
    try:
        sent = place.host.ssh("printf 'Subject: no\\n\\nno\\n' | /usr/sbin/sendmail root", check=False)
    finally:
        place.host.ssh(f"mv {trust}.kept {trust}")
    assert sent.returncode != 0
    assert "certificate" in sent.stderr
    assert len(read_mail(place.lab)) == before


# --- The last: another database on the same stanza ----------------------------------------------------------------


def test_another_database_does_not_touch_the_backups(place: Place) -> None:
    place.host.ssh("pg_dropcluster --stop 17 main")
    _, log = run_roles(place)
    assert "The stanza social in bucket backups at https://s3.world.test holds the backups of another database" in log
    assert status(place)["backups"] == 1
    report, log = run_roles(place, instance_changes={"backups": {"stanza": "anew"}})
    assert REPOSITORY in changed(report), log
    assert status(place)["problems"] == []
