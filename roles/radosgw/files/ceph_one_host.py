#!/usr/bin/python3
"""Make a Ceph of one monitor, one manager and one OSD on this host, and the S3 users of its gateway.

ceph-one-host state          print as JSON which parts are missing and what each user may do; changes nothing
ceph-one-host cluster        make the missing parts; done again it changes nothing
ceph-one-host user UID MAX   make or wake the user, and set how many buckets it may make (-1: none)
ceph-one-host suspend UID    the user's keys are refused from now on; its buckets stay

Each part is made beside its place and renamed into it, or has a file that is written last, so that a run that died
anywhere is finished by the next one. A part that is missing although there is data is never made anew.
Keys go from program to program in files and pipes, never in arguments.
"""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LIB = Path("/var/lib/ceph")
CONF = Path("/etc/ceph/ceph.conf")
ADMIN = Path("/etc/ceph/ceph.client.admin.keyring")
MON, MGR, OSD, RGW = (LIB / p for p in ("mon/ceph-a", "mgr/ceph-a", "osd/ceph-0", "radosgw/ceph-rgw.a"))
DONE = {"mon": MON / "store.db", "mgr": MGR / "keyring", "osd": OSD / "ready", "rgw": RGW / "keyring"}
LOCK = Path("/run/ceph-one-host.lock")
LOST = (
    "Refused: {} is missing, but this host holds S3 data. Restore it from a copy of /var/lib/ceph; nothing was changed."
)


def run(*command: str, stdin: str = "", user: str | None = None) -> str:
    """Standard output of a command; a failure ends the program with what the command said."""
    # The lock is passed on: a program that outlives a killed run keeps the next one waiting.
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, user=user, group=user, close_fds=False, check=False
    )
    if done.returncode:
        sys.exit(f"{command[0]} {command[1]} failed ({done.returncode}): {done.stderr.strip()[-600:]}")
    return done.stdout


def give(path: Path) -> None:
    """Everything below the path belongs to the ceph account."""
    run("chown", "-R", "ceph:ceph", str(path))


def fsid() -> str:
    """The cluster's identity, as ceph.conf has it."""
    conf = configparser.ConfigParser()
    conf.read(CONF)
    return conf["global"]["fsid"]


def fresh(path: Path) -> Path:
    """An empty directory of the ceph account, beside the place it is made for."""
    new = path.with_name(f".new-{path.name}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def make_mon() -> None:
    """Keys first, then the monitor's store; no monitor runs before both are complete."""
    if DONE["osd"].exists():
        sys.exit(LOST.format(MON))
    new = fresh(MON)
    admin, mon, store = new / "admin.keyring", new / "mon.keyring", new / "store"
    store.mkdir()
    everything = [word for part in ("mon", "osd", "mgr", "mds") for word in ("--cap", part, "allow *")]
    tool = ("ceph-authtool", "--create-keyring")
    run(*tool, str(admin), "--gen-key", "-n", "client.admin", *everything)
    run(*tool, str(mon), "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    run("ceph-authtool", str(mon), "--import-keyring", str(admin))
    address = "[v2:127.0.0.1:3300/0,v1:127.0.0.1:6789/0]"
    run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid(), "--clobber", str(new / "map"))
    give(new)
    made = ("--monmap", str(new / "map"), "--keyring", str(mon), "--mon-data", str(store))
    run("ceph-mon", "--mkfs", "-i", "a", *made, user="ceph")
    run("chown", "root:root", str(admin))
    admin.rename(ADMIN)
    store.rename(MON)
    shutil.rmtree(new)


def make_keyring(path: Path, entity: str, *caps: str) -> None:
    """A daemon's key from the monitor, written last and whole."""
    path.mkdir(parents=True, exist_ok=True)
    new = path / "keyring.new"
    new.write_text(run("ceph", "auth", "get-or-create", entity, *caps))
    give(path)
    new.rename(path / "keyring")


def make_osd() -> None:
    """The OSD's number and uuid are fixed, and its key is kept, so that asking the monitor twice is the same."""
    if any(osd["up_from"] for osd in json.loads(run("ceph", "osd", "dump", "-f", "json"))["osds"]):
        sys.exit(LOST.format(DONE["osd"]))
    OSD.mkdir(parents=True, exist_ok=True)
    key_file = OSD / "key"
    if not key_file.exists():
        new = OSD / "key.new"
        new.write_text(run("ceph-authtool", "--gen-print-key").strip())
        new.rename(key_file)
    for path in OSD.iterdir():
        if path != key_file:
            path.unlink()
    key, name = key_file.read_text(), str(uuid.uuid5(uuid.UUID(fsid()), "osd.0"))
    run("ceph", "osd", "new", name, "0", "-i", "-", stdin=json.dumps({"cephx_secret": key}))
    (OSD / "keyring").write_text(f"[osd.0]\n\tkey = {key}\n")
    give(OSD)
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", name, user="ceph")


def wait(what: str, condition: Callable[[], bool]) -> None:
    """Until the condition holds; ends the program when it does not in a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not come up within 60 s: see journalctl -u 'ceph-*'")
        time.sleep(0.2)


def osd_up() -> bool:
    """Whether the OSD serves."""
    return '"num_up_osds":1' in run("ceph", "osd", "stat", "-f", "json")


def answers() -> bool:
    """Whether the gateway answers; it makes its pools first, which takes seconds."""
    try:
        return bool(urllib.request.urlopen("http://127.0.0.1:7480/", timeout=5).status == 200)
    except OSError:
        return False


def start(unit: str) -> None:
    """Now and at every boot; a start limit that an earlier run hit is cleared."""
    subprocess.run(["systemctl", "reset-failed", unit], capture_output=True, check=False)
    run("systemctl", "enable", "--now", "--quiet", unit)


def cluster() -> None:
    """Every part that is missing, in the order in which one needs the other."""
    if not DONE["mon"].exists():
        make_mon()
    start("ceph-mon@a")
    if not DONE["osd"].exists():
        make_osd()
    start("ceph-osd@0")
    if not DONE["mgr"].exists():
        make_keyring(MGR, "mgr.a", "mon", "allow profile mgr", "osd", "allow *", "mds", "allow *")
    start("ceph-mgr@a")
    wait("The OSD", osd_up)
    if not DONE["rgw"].exists():
        make_keyring(RGW, "client.rgw.a", "mon", "allow rw", "osd", "allow rwx")
    start("ceph-radosgw@rgw.a")
    wait("The gateway", answers)
    # The manager loads none of its modules (ceph.conf says why), and that error hides others.
    run("ceph", "health", "mute", "MGR_MODULE_ERROR", "--sticky")


def admin(*command: str) -> Any:
    """What radosgw-admin answers; it would wait for a cluster that is down, so only ask one that runs."""
    return json.loads(run("radosgw-admin", *command))


def user(uid: str, limit: str) -> None:
    """The gateway makes the keys; they are read back with `radosgw-admin user info`, never given."""
    if uid not in admin("metadata", "list", "user"):
        run("radosgw-admin", "user", "create", f"--uid={uid}", f"--display-name={uid}", f"--max-buckets={limit}")
        return
    run("radosgw-admin", "user", "modify", f"--uid={uid}", f"--max-buckets={limit}")
    run("radosgw-admin", "user", "enable", f"--uid={uid}")


def state() -> dict[str, object]:
    """Missing parts; by user how many buckets it may make, and None where it is suspended."""
    missing = [part for part, path in DONE.items() if not path.exists()]
    asked = ("systemctl", "is-active", "ceph-mon@a", "ceph-osd@0")
    running = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split() == ["active"] * 2
    users = {}
    if running and not missing:
        with ThreadPoolExecutor() as pool:
            for found in pool.map(lambda uid: admin("user", "info", f"--uid={uid}"), admin("metadata", "list", "user")):
                users[found["user_id"]] = None if found["suspended"] else found["max_buckets"]
    return {"missing": missing, "users": users}


def alone() -> None:
    """Until this program ends, with everything it started, no second one changes anything."""
    os.umask(0o077)
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["state"]:
            print(json.dumps(state()))
        case ["cluster"]:
            alone()
            cluster()
        case ["user", uid, limit]:
            alone()
            user(uid, limit)
        case ["suspend", uid]:
            alone()
            run("radosgw-admin", "user", "suspend", f"--uid={uid}")
        case _:
            sys.exit(__doc__)
