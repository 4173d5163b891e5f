"""Steady requests from the machine `outside` while something happens to the instance."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.deployed import WEB, Deployed

RATE = 20  # requests a second
# Each request is a new connection that verifies the certificate; all are sent on time, whatever the answers do.
PROGRAM = """\
import http.client, json, ssl, sys, threading, time
host, path, rate = sys.argv[1], sys.argv[2], float(sys.argv[3])
trust = ssl.create_default_context(cafile="/root/lab-ca.pem")
seen, stop = [], threading.Event()
def one():
    began = time.monotonic()
    try:
        line = http.client.HTTPSConnection(host, timeout=60, context=trust)
        line.request("GET", path)
        answer = line.getresponse()
        answer.read()
        what = answer.status
        line.close()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
    seen.append((what, time.monotonic() - began))
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
print("started", flush=True)
due, sent = time.monotonic(), []
while not stop.wait(max(0, due - time.monotonic())):
    sent.append(threading.Thread(target=one))
    sent[-1].start()
    due += 1 / rate
for thread in sent:
    thread.join()
print(json.dumps(seen))
"""


@dataclass
class Load:
    """What became of the requests; filled when the block has ended."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """Seconds that this part of the requests took at most."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    def __str__(self) -> str:
        """One line for the report."""
        times = f"p50 {self.percentile(0.5) * 1000:.0f} ms, p99 {self.percentile(0.99) * 1000:.0f} ms"
        return f"{len(self.failed)} of {len(self.seconds)} requests failed at {RATE}/s, {times}"


@contextmanager
def load(instance: Deployed, path: str = "/auth/sign_in", rate: float = RATE) -> Iterator[Load]:
    """Ask for a dynamic page while the block runs. Every answer but 200 counts as failed."""
    machine = instance.machine("outside")
    machine.exec(["sh", "-c", "cat > /root/lab-ca.pem"], stdin=(instance.directory / "lab-ca.pem").read_text())
    command = [*machine.enter(), "python3", "-c", PROGRAM, WEB, path, str(rate)]
    result = Load()
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout
    assert running.stdout.readline() == "started\n"
    try:
        yield result
    finally:
        told, _ = running.communicate(timeout=120)
    for what, seconds in json.loads(told):
        result.seconds.append(seconds)
        if what != 200:
            result.failed.append(str(what))
    print(f"\n{result}")
