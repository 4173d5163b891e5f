"""Small programs that watch a machine from inside while a deploy runs, and what they saw.

The secrets they look for travel on standard input: a watcher must not be the leak it looks for.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mastodon_gov import secrets
from mastodon_gov.inventory import identity_path
from mastodon_gov.lab.machine import Machine

# Reads its program from the first line, so that the program and what it must know are in no argument list.
RUN = ["python3", "-c", "import json, sys; exec(json.loads(sys.stdin.readline()))"]

# Follows every directory below ROOTS by inotify and looks at a file as soon as it was written, renamed or changed its
# mode; GROUPS says whose group may read which file. Ends with its standard input; then prints what was too wide.
FILES = r"""
import ctypes, grp, os, re, select, stat, struct
libc = ctypes.CDLL(None, use_errno=True)
EVENTS = 0x2 | 0x4 | 0x8 | 0x80 | 0x100  # MODIFY, ATTRIB, CLOSE_WRITE, MOVED_TO, CREATE
fd, places, found, lost, looked = libc.inotify_init1(0o4000), {}, {}, 0, 0
pattern = re.compile(b"|".join(re.escape(value.encode()) for value in SECRETS))

def look(path):
    global looked
    try:
        seen = os.lstat(path)
        if stat.S_ISDIR(seen.st_mode):
            return follow(path)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > 2 << 20:
            return
        with open(path, "rb") as file:
            looked += 1
            if pattern.search(file.read()):
                judge(path, os.fstat(file.fileno()), seen)
    except OSError:
        pass  # gone again

def judge(path, now, before):
    for seen in (before, now):
        group = grp.getgrgid(seen.st_gid).gr_name
        if seen.st_mode & 0o137 or (seen.st_mode & 0o040 and group != GROUPS.get(path.removesuffix(".new"), "root")):
            found[path] = f"{seen.st_mode & 0o7777:o} {group}"

def follow(directory):
    if directory in SKIP:
        return
    number = libc.inotify_add_watch(fd, os.fsencode(directory), EVENTS)
    if number < 0 or number in places:
        return
    places[number] = directory
    for name in os.listdir(directory):  # what came before the watch
        look(os.path.join(directory, name))

for root in ROOTS:
    if os.path.isdir(root):
        follow(root)
print("watching", flush=True)
while True:
    ready = select.select([fd, 0], [], [])[0]
    if fd in ready:
        data = os.read(fd, 1 << 20)
        while data:
            number, mask, _, length = struct.unpack("iIII", data[:16])
            name, data = data[16:16 + length].rstrip(b"\0").decode(), data[16 + length:]
            lost += bool(mask & 0x4000)  # the queue was full
            if number in places and name:
                look(os.path.join(places[number], name))
    elif 0 in ready and not os.read(0, 100):
        break
print(json.dumps({"found": found, "lost": lost, "looked": looked}))
"""

# Reads arguments and environment of every process again and again.
PROCESSES = r"""
import os, pwd, re, select
pattern = re.compile(b"|".join(re.escape(value.encode()) for value in SECRETS))
found, looked = {}, 0
print("watching", flush=True)
while not select.select([0], [], [], 0.02)[0]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            who = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
            words = open(f"/proc/{pid}/cmdline", "rb").read()
            environment = open(f"/proc/{pid}/environ", "rb").read()
        except (OSError, KeyError):
            continue
        looked += 1
        for what, held in (("arguments", words), ("environment", environment)):
            if pattern.search(held):
                found[f"{what} of {who}: {words.split(bytes(1))[0].decode()}"] = pid
print(json.dumps({"found": found, "looked": looked}))
"""


def known_secrets(directory: Path) -> list[str]:
    """Every value of the instance that nobody may see. The relay's login is a word like any other, and the public
    half of a key pair is shown to every browser."""
    values = secrets.store.read_values(directory, identity_path(directory))
    return [str(v) for name, v in values.items() if name not in ("mail.login", "mastodon.vapid_public_key")]


@contextmanager
def watching(machine: Machine, program: str, **known: object) -> Iterator[dict[str, object]]:
    """Run a watcher while the block runs; afterwards the dictionary holds what it printed (nothing if it was killed
    together with the machine). `known` are the names its program uses."""
    told = "".join(f"{name} = json.loads({json.dumps(json.dumps(value))})\n" for name, value in known.items())
    saw: dict[str, object] = {}
    with subprocess.Popen(
        [*machine.enter(), *RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(told + program) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "watching\n"
        try:
            yield saw
        finally:
            process.stdin.close()
            saw.update(json.loads(process.stdout.read() or "{}"))
