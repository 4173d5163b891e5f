"""A real browser on the machine `outside`: headless Chromium, driven over WebDriver (W3C) with curl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mastodon_gov.lab.machine import Machine
from tests.lab.deployed import WEB, wait_for

INSTALL = (
    "command -v chromedriver || { apt-get -qq update && DEBIAN_FRONTEND=noninteractive "
    "apt-get -qq -y --no-install-recommends install chromium chromium-driver; }"
)
DRIVER = "http://127.0.0.1:9515"
# The lab's authority is not in Chromium's own list; that nginx shows the right certificate is another test's affair.
WANTED = {
    "acceptInsecureCerts": True,
    "goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]},
}


class Chromium:
    """One window; elements are found by CSS selector."""

    def __init__(self, machine: Machine, session: str) -> None:
        """Use a session of the driver that runs on this machine."""
        self.machine, self.base = machine, f"/session/{session}"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return ask(self.machine, method, self.base + path, body)

    def open(self, path: str) -> None:
        """Go to a page of the instance; `path` may be a whole address."""
        self._ask("POST", "/url", {"url": path if "://" in path else f"https://{WEB}{path}"})

    @property
    def path(self) -> str:
        """Where it is: path and query."""
        return str(self._ask("GET", "/url")).partition(WEB)[2]

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self._ask("GET", f"/element/{self._find('body')}/text"))

    def _find(self, selector: str) -> str:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def has(self, selector: str) -> bool:
        """Whether the page has such an element."""
        return bool(self._ask("POST", "/elements", {"using": "css selector", "value": selector}))

    def read(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self._ask("GET", f"/element/{self._find(selector)}/text"))

    def type(self, name: str, words: str) -> None:
        """Type into the field with this name, key by key."""
        self._ask("POST", f"/element/{self._find(field(name))}/value", {"text": words})

    def click(self, selector: str) -> None:
        """Click, and wait for the page that comes, as WebDriver does."""
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def submit(self, action: str) -> None:
        """Click the button of the form that is sent to this path."""
        self.click(f'form[action^="{action}"] [type="submit"]')


def field(name: str) -> str:
    """Selector of a visible field."""
    return f'input[name="{name}"]:not([type="hidden"])'


def ask(machine: Machine, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One command to the driver; its error is the test's failure."""
    words = ["curl", "-sS", "--max-time", "120", "-X", method, "-H", "Content-Type: application/json"]
    words += ["--data-binary", "@-"] if body is not None else []
    done = machine.exec([*words, DRIVER + path], stdin=json.dumps(body) if body is not None else "")
    value = json.loads(done.stdout)["value"]
    assert not (isinstance(value, dict) and "error" in value), (path, body, value["message"])
    return value


@contextmanager
def chromium(machine: Machine) -> Iterator[Chromium]:
    """Install it if need be (300 MB), start it, and end it."""
    machine.exec(["sh", "-c", INSTALL])
    machine.exec(["systemd-run", "--quiet", "--collect", "--unit=chromedriver", "chromedriver", "--port=9515"])

    def ready() -> bool:
        return machine.exec(["curl", "-fsS", f"{DRIVER}/status"], check=False).returncode == 0

    try:
        wait_for(ready, 60, "chromedriver")
        session = ask(machine, "POST", "/session", {"capabilities": {"alwaysMatch": WANTED}})["sessionId"]
        yield Chromium(machine, session)
    finally:
        machine.exec(["systemctl", "stop", "chromedriver"], check=False)
