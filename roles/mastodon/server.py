"""What the server shows (`server:` of instance.yaml): compared by SQL, made by one start of Rails.

Why so, and what removal means: docs/decisions/settings-as-code.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml
from pyinfra import host, logger
from pyinfra.api import FactBase, FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from mastodon_gov.instance import Node
from mastodon_gov.instance.server_document import Items, items, payload
from roles.lib import Commands
from roles.lib.progress import tell_difference
from roles.mastodon.files.server_settings import UNKNOWN
from roles.mastodon.processes import LIB

SHOWN = 60  # characters of a value in a plan
MADE = "SELECT to_regproc('gov.server_items') IS NOT NULL AS there \\gset\n\\if :there\nSELECT gov.server_items();\n"
MADE += "\\endif\n"


class ServerItems(FactBase[dict[str, dict[str, Any]]]):
    """Items made by earlier deploys: `wanted` and `state` of then, `live` of now, `release` that made them."""

    default = dict

    def command(self) -> StringCommand:
        """Nothing where there is no database or no lock yet."""
        psql = "runuser -u postgres -- psql -qtAX -v ON_ERROR_STOP=1 -d mastodon_production -f - 2>/dev/null; true"
        return StringCommand("sh -c", QuoteString(f'printf %s "$1" | {psql}'), "sh", QuoteString(MADE))

    def process(self, output: list[str]) -> dict[str, dict[str, Any]]:
        """One JSON document."""
        found: dict[str, dict[str, Any]] = json.loads("".join(output) or "{}")
        return found


def differing(wanted: Items, made: dict[str, dict[str, Any]], release: str) -> Iterator[str]:
    """Items to make anew or to take away. A release that did not make them may understand more of them."""
    for item, value in wanted.items():
        seen = made.get(item)
        settled = seen and seen["release"] == release and seen["wanted"] == value and seen["live"] == seen["state"]
        if not settled:
            yield item
    yield from made.keys() - wanted.keys()


def sentence(item: str, wanted: Items, made: dict[str, dict[str, Any]]) -> str:
    """`setting/site_title: "Mastodon" → "Agency Social"`, with the value the server has now on the left."""
    seen, new = made.get(item), wanted.get(item)
    if seen is None or seen["wanted"] is None:
        return f"{item}: as the release has it → {_show(new)}"
    by_hand = seen["release"] is not None and seen["live"] != seen["state"]
    if item in wanted and new == seen["wanted"] and not by_hand:
        return (
            f"{item}: {_show(new)}, again for the new release"
            if seen["release"]
            else f"{item}: {_show(new)}, to be finished"
        )
    old = _plain(seen["live"]) if by_hand else seen["wanted"]
    if item not in wanted:
        return f"{item}: {_show(old)} → taken away"
    if by_hand:
        return f"{item}: {_show(old)} (changed on the server) → {_show(new)}"
    if isinstance(old, dict) and isinstance(new, dict):
        return f"{item}: " + ", ".join(
            f"{key} {_pair(old.get(key), new[key])}" for key in new if old.get(key) != new[key]
        )
    return f"{item}: {_pair(old, new)}"


def _plain(live: Any) -> Any:
    """Settings are YAML in the database; only for a person to read."""
    try:
        return yaml.safe_load(live) if isinstance(live, str) else live
    except yaml.YAMLError:
        return live


def _show(value: Any, same: int = 0) -> str:
    """A value on one line, from where it begins to differ (`same` characters are shown elsewhere already)."""
    text = json.dumps(value, ensure_ascii=False)
    begin = max(0, same - SHOWN // 4) if len(text) > SHOWN else 0
    end = "" if len(text) - begin <= SHOWN else f"… ({len(text)} characters)"
    return f"{'…' if begin else ''}{text[begin : begin + SHOWN]}{end}"


def _pair(old: Any, new: Any) -> str:
    """`old → new`; of long values the part where they part."""
    both = zip(json.dumps(old, ensure_ascii=False), json.dumps(new, ensure_ascii=False), strict=False)
    same = next((at for at, (one, other) in enumerate(both) if one != other), 0)
    return f"{_show(old, same)} → {_show(new, same)}"


@operation()
def server_settings(node: Node) -> Commands:
    """Make what differs, in one start of Rails; start none when nothing differs."""
    wanted, made = items(node.instance), host.get_fact(ServerItems)
    todo = sorted(set(differing(wanted, made, node.release.name)))
    for item in todo:
        tell_difference(sentence(item, wanted, made))
    if todo:
        # Pictures travel only when they are others than those made last.
        new = {w["sha256"] for i in todo if isinstance(w := wanted.get(i), dict) and "sha256" in w}
        pictures = {digest: content for digest, content in payload(node.instance).items() if digest in new}
        document = {"release": node.release.name, "wanted": wanted, "payload": pictures}
        yield StringCommand(f"{LIB}/server_settings.py", _stdin=json.dumps(document))
        yield FunctionCommand(tell_unknown, (node.release.version,), {})


def tell_unknown(state: State, host: Host, version: str) -> bool:
    """Say what the release has no place for: it is not an error, because the next one may have it."""
    _, said = host.run_shell_command(f"cat {UNKNOWN}", _sudo=True)
    for item in json.loads("".join(said.stdout_lines)):
        logger.warning(f"NOTE: {host.name}: Mastodon {version} does not know {item}, so it was left out.")
    return True
