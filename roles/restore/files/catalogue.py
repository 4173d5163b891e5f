"""What the backup repository holds.

For restore.py and drill.py (root, Debian 13, standard library only). pgBackRest's exit codes are not believed.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CONF = "/etc/pgbackrest.conf"
ANSWER_WITHIN = 60  # seconds
POINTS = "restore-points"
BESIDE = "--repo1-path=/"
RUN = "/run"
FIRST = 1  # of the two repositories, the one that has manifests and restore points beside the backups
# A restore that goes on after the program that asked for it was killed would be in the way of the next one.
ENDS_WITH_US = ("--init-groups", "--reset-env", "--pdeathsig=KILL")


class Refused(Exception):
    """A sentence for a person."""


@dataclass(frozen=True)
class Target:
    """Where recovery stops: `kind` is time, name or latest. `as_of`: the repository as it was at this time (UTC).
    `repository`: the number of the one that is read."""

    kind: str
    value: str = ""
    as_of: str = ""
    repository: int = FIRST

    @property
    def words(self) -> str:
        """For a person."""
        return "the newest moment" if self.kind == "latest" else f"{self.kind} {self.value}"


def seconds(text: str) -> float:
    """Seconds since 1970 of an ISO time with zone."""
    return datetime.fromisoformat(text).timestamp()


def iso(when: float) -> str:
    """UTC, with the zone, as a person and PostgreSQL read it."""
    return datetime.fromtimestamp(when, UTC).isoformat(sep=" ", timespec="seconds")


def configured() -> tuple[str, configparser.SectionProxy]:
    """The stanza, and the settings of the repository."""
    conf = configparser.ConfigParser(interpolation=None)
    with open(CONF, encoding="utf-8") as text:
        conf.read_file(text)
    return next(name for name in conf.sections() if name != "global"), conf["global"]


def as_user(user: str, *words: str, given: str = "", timeout: float | None = ANSWER_WITHIN) -> Any:
    """Run as an account, in a directory it may read. Refused when there is no answer in time."""
    try:
        return subprocess.run(
            ["setpriv", f"--reuid={user}", f"--regid={user}", *ENDS_WITH_US, "--", *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{words[0]} gave no answer within {timeout:.0f} s; is the backup store reachable?") from None


def pgbackrest(target: Target, *words: str) -> list[str]:
    """Command line for the repository, or for the repository as it was at `as_of`."""
    then = [f"--repo-target-time={target.as_of}"] if target.as_of else []
    return ["pgbackrest", f"--stanza={configured()[0]}", f"--repo={target.repository}", *then, *words]


@contextmanager
def alone(number: int) -> Iterator[str]:
    """An option with which pgBackRest knows one repository only: some commands take no --repo, and another one that is
    away is no reason not to restore. The file holds what CONF holds, for the same readers."""
    others = re.compile(rf"repo(?!{number}-)\d+-")
    lines = [line for line in Path(CONF).read_text().splitlines() if not others.match(line)]
    with tempfile.NamedTemporaryFile("w", prefix="mfg-pgbackrest-", dir=RUN) as file:
        shutil.chown(file.name, group="postgres")
        os.chmod(file.name, 0o640)
        file.write("\n".join(lines) + "\n")
        file.flush()
        yield f"--config={file.name}"


def ask(target: Target, *words: str, user: str = "postgres") -> str:
    """Standard output of a question to the repository. Refused with pgBackRest's first line when it cannot answer."""
    quiet = ["--log-level-console=off", "--log-level-file=off", "--log-level-stderr=error"]
    done = as_user(user, *pgbackrest(target, *quiet, *words))
    if done.returncode:
        raise Refused(f"The backup repository does not answer: {first_line(done.stderr)}.")
    return str(done.stdout)


def first_line(text: str) -> str:
    """What went wrong, without what may be pieces of a file that was read with a wrong passphrase."""
    lines = [line for line in text.strip().splitlines() if line.strip()] or ["it said nothing"]
    code = re.search(r"<Code>(\w+)</Code>", text)
    return lines[0].rstrip(":.")[:300] + (f" ({code[1]})" if code else "")


def _info(target: Target, user: str) -> dict[str, Any]:
    """What `info` says of the repository; `status` is that of the repository alone."""
    check_second(target)
    try:
        found: dict[str, Any] = json.loads(ask(target, "--output=json", "info", user=user), strict=False)[0]
    except (ValueError, IndexError):
        raise Refused("pgBackRest's answer cannot be read; see `pgbackrest info` on the host.") from None
    return found | {"status": found["repo"][0]["status"] if found.get("repo") else found["status"]}


def check_second(target: Target) -> None:
    """Refused where there is no second repository, or one that cannot do what is asked of it."""
    kind = target.repository == FIRST or configured()[1].get(f"repo{target.repository}-type")
    if not kind:
        raise Refused(
            "--repository: found 2, and this host knows no second repository. Set backups.second in instance.yaml and "
            "deploy, or restore from the first one. Nothing was changed."
        )
    if target.repository != FIRST and target.kind == "name":
        raise Refused(
            f"--to: found the name '{target.value}'; names of restore points lie in the first repository only. Allowed "
            "with --repository 2: a time with zone, or latest. Nothing was changed."
        )
    if kind == "posix" and target.as_of:
        raise Refused(
            "--as-of: the second repository is a directory, which keeps no earlier versions. Allowed: --repository 2 "
            "without --as-of. Nothing was changed."
        )


def status(target: Target, user: str = "postgres") -> tuple[int, str]:
    """Code and message of the repository. Refused when it does not answer."""
    told = _info(target, user)["status"]
    return told["code"], told["message"]


def repository(target: Target, user: str = "postgres") -> dict[str, Any]:
    """Backups, and the databases they are of. Refused, with a sentence, for a repository that is not good."""
    found = _info(target, user)
    if found["status"]["code"]:
        message = first_line(found["status"]["message"])
        if "FormatError" in message or "CryptoError" in message:
            raise Refused(
                "The backups cannot be read with backups.cipher_pass of the secrets: they were made with another "
                "passphrase, or somebody wrote over them. Put the right passphrase back with `mastodon-gov secrets "
                "edit`; or give a time before that with --as-of, for the bucket keeps what was there. Nothing was "
                "changed."
            )
        raise Refused(
            f"The backup repository holds nothing that can be restored: {message}. If somebody deleted or overwrote "
            "it, give a time before that with --as-of; the bucket keeps what was there. Nothing was changed."
        )
    return found


def listing(target: Target, place: str, *options: str, user: str = "postgres") -> dict[str, Any]:
    """What lies at a place of the repository, by name. Beside pgBackRest's own files the second one has none."""
    if target.repository != FIRST and BESIDE in options:
        return {}
    told: dict[str, Any] = json.loads(ask(target, *options, "--output=json", "repo-ls", place, user=user) or "{}")
    return told


def points(target: Target, since: float) -> list[dict[str, Any]]:
    """Restore points from this moment on (their keys begin with their time), oldest first. Each is a question to the
    repository, and older ones cannot be reached."""
    first = datetime.fromtimestamp(since, UTC).strftime("%Y%m%d%H%M%S")
    found = [_point(target, key) for key in _point_keys(target) if key >= first]
    return [point for point in found if point]


def _point_keys(target: Target) -> list[str]:
    """As restore_point.py writes them, beside pgBackRest's files: YYYYmmddHHMMSS-NAME.json."""
    listed = listing(target, POINTS, BESIDE)
    return sorted(key for key, told in listed.items() if told.get("type") == "file")


def _point(target: Target, key: str) -> dict[str, Any] | None:
    """Name, time (UTC), lsn, wal; None for what somebody else put there."""
    point = parsed(ask(target, BESIDE, "--raw", "repo-get", f"{POINTS}/{key}"))
    return point if {"name", "time", "lsn", "wal"} <= point.keys() else None


def parsed(text: str) -> dict[str, Any]:
    """A JSON object out of the bucket; empty where somebody put something else there."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def point_of(target: Target) -> dict[str, Any]:
    """The restore point of this name; the newest, if a name was used twice."""
    keys = _point_keys(target)
    for key in reversed([key for key in keys if key[15:] == f"{target.value}.json"]):
        if (point := _point(target, key)) and point["name"] == target.value:
            return point
    known = ", ".join(key[15:].removesuffix(".json") for key in keys[-10:]) or "none"
    raise Refused(f"There is no restore point '{target.value}'. Known: {known}. Nothing was changed.")


def moment(target: Target, last: str | None) -> float:
    """Seconds since 1970 of what the copy was brought to: the time asked for, that of the point, or for `latest` the
    copy's last change (`last`, as PostgreSQL's log spells it)."""
    if target.kind == "latest":
        return seconds(last) if last else datetime.now(UTC).timestamp()
    return seconds(target.value if target.kind == "time" else point_of(target)["time"])


def binaries(found: dict[str, Any]) -> Path:
    """PostgreSQL's programs for these backups. Refused when this host has another version."""
    version = found["db"][-1]["version"]
    place = Path(f"/usr/lib/postgresql/{version}/bin")
    if not (place / "postgres").exists():
        here = ", ".join(sorted(path.name for path in Path("/usr/lib/postgresql").glob("*"))) or "none"
        raise Refused(
            f"The backups are of PostgreSQL {version}, and this host has {here}. Restore with the release of this "
            "product that made them. Nothing was changed."
        )
    return place


def run(*words: str, timeout: float | None = 600) -> str:
    """Standard output of a command. Refused with its last words when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, cwd="/")
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()[-4:]
        raise Refused(f"{' '.join(words[:4])} ended with {done.returncode}: {' '.join(told)}")
    return done.stdout
