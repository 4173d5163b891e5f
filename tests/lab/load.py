"""Steady requests from the machine `outside` while something happens to the instance."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from secrets import token_hex

from tests.lab.deployed import WEB, Deployed

RATE = 20  # requests a second
# Each request is a new connection that verifies the certificate; all are sent on time, whatever the answers do. What to
# ask comes on the first line of standard input, so that no argument list shows a token; its end ends the load.
PROGRAM = """\
import http.client, json, ssl, sys, threading, time, urllib.parse
asked = json.loads(sys.stdin.readline())
trust = ssl.create_default_context(cafile="/root/lab-ca.pem")
seen, stop = [], threading.Event()
def one(number):
    began, at, text = time.monotonic(), time.time(), f"{asked['mark']} {number}"
    request = ["GET", asked["path"]]
    if asked["token"]:
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Bearer {asked['token']}"}
        request = ["POST", asked["path"], urllib.parse.urlencode({"status": text}), kind]
    try:
        line = http.client.HTTPSConnection(asked["host"], timeout=60, context=trust)
        line.request(*request)
        answer = line.getresponse()
        answer.read()
        what = answer.status
        line.close()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
    seen.append((text, what, time.monotonic() - began, at))
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
print("started", flush=True)
due, sent = time.monotonic(), []
while not stop.wait(max(0, due - time.monotonic())):
    sent.append(threading.Thread(target=one, args=(len(sent),)))
    sent[-1].start()
    due += 1 / asked["rate"]
for thread in sent:
    thread.join()
print(json.dumps(seen))
"""
Seen = list[tuple[str, int | str, float, float]]  # text of the post, status or error, seconds, when it was sent


@contextmanager
def _asking(instance: Deployed, path: str, rate: float, mark: str = "", token: str = "") -> Iterator[Seen]:
    """Ask while the block runs; what became of each request is in the list when it has ended."""
    seen: Seen = []
    machine = instance.machine("outside")
    machine.exec(["sh", "-c", "cat > /root/lab-ca.pem"], stdin=(instance.directory / "lab-ca.pem").read_text())
    command = [*machine.enter(), "python3", "-c", PROGRAM]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdin
    assert running.stdout
    running.stdin.write(json.dumps({"host": WEB, "path": path, "rate": rate, "mark": mark, "token": token}) + "\n")
    running.stdin.flush()
    assert running.stdout.readline() == "started\n"
    try:
        yield seen
    finally:
        told, _ = running.communicate(timeout=120)
    seen.extend(json.loads(told))


@dataclass
class Load:
    """What became of the requests; filled when the block has ended."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)  # seconds since 1970

    def percentile(self, part: float, since: float = 0, until: float = inf) -> float:
        """Seconds that this part of the requests (sent in this time) took at most; 0 where there were none."""
        ordered = sorted(s for s, at in zip(self.seconds, self.sent, strict=True) if since <= at < until)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0

    def __str__(self) -> str:
        """One line for the report."""
        times = f"p50 {self.percentile(0.5) * 1000:.0f} ms, p99 {self.percentile(0.99) * 1000:.0f} ms"
        return f"{len(self.failed)} of {len(self.seconds)} requests failed, {times}"


@contextmanager
def load(instance: Deployed, path: str = "/auth/sign_in", rate: float = RATE) -> Iterator[Load]:
    """Ask for a dynamic page while the block runs. Every answer but 200 counts as failed."""
    result = Load()
    with _asking(instance, path, rate) as seen:
        yield result
    for _, what, seconds, at in seen:
        result.seconds.append(seconds)
        result.sent.append(at)
        if what != 200:
            result.failed.append(str(what))
    print(f"\n{result}")


@dataclass
class Posts:
    """What became of the posts; filled when the block has ended. `lost` were acknowledged and are not there."""

    acknowledged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for the report."""
        return f"{len(self.failed)} posts failed, {len(self.lost)} of {len(self.acknowledged)} acknowledged were lost"


@contextmanager
def posting(instance: Deployed, token: str, rate: float = 2) -> Iterator[Posts]:
    """Post while the block runs, then look in the database for every post that was acknowledged."""
    result, mark = Posts(), f"load {token_hex(4)}"
    with _asking(instance, "/api/v1/statuses", rate, mark, token) as seen:
        yield result
    for text, what, *_ in seen:
        (result.acknowledged if what == 200 else result.failed).append(text if what == 200 else f"{text}: {what}")
    there = instance.sql(f"SELECT text FROM statuses WHERE text LIKE '{mark} %'").splitlines()  # noqa: S608  our own mark
    result.lost += sorted(set(result.acknowledged) - set(there))
    print(result)
