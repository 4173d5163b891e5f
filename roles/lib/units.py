"""systemd units: enabled, running, and younger than what they read.

Whether to restart is decided by state, not by "something changed in this run": a run that died between writing and
restarting is healed by the next one (DESIGN §3.9).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from pyinfra.api import FactBase, QuoteString, StringCommand, operation
from pyinfra.api.host import Host

from roles.lib import Commands
from roles.lib.seen import changed, seen, this_host

# systemd does not say when a unit was last reloaded; /run forgets with the boot, as the unit's own start does.
SYSTEM = "/etc/systemd/system"
STAMPS = "/run/mastodon-gov/reloaded"
PROPERTIES = (
    "Id,Names,ActiveState,UnitFileState,LoadState,NeedDaemonReload,ConditionResult,ConditionTimestamp,"
    "InactiveExitTimestamp,FragmentPath,DropInPaths"
)


@dataclass(frozen=True)
class Unit:
    """A unit and the files it reads at start.

    `reload`: a reload is enough for what it reads; its own unit file and drop-ins always need a restart.
    `check`: a command that must pass before it is restarted or reloaded. `masked`: stopped, and nobody can start it.
    `run`: false for what only a timer or another unit starts; systemd must know its newest text all the same.
    `gone`: what a removed setting had begun: stopped, not started at boot, its failure forgotten; before its file goes.
    """

    name: str
    reads: tuple[str, ...] = ()
    reload: bool = False
    check: str | None = None
    masked: bool = False
    run: bool = True
    gone: bool = False


@dataclass(frozen=True)
class Observed:
    """Properties of each unit by any of its names, and times of change by path (seconds since 1970)."""

    units: dict[str, dict[str, str]] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)

    def newest(self, paths: list[str]) -> float:
        """When the youngest of these files changed; 0 where none exists."""
        return max((self.times.get(path, 0.0) for path in paths), default=0.0)


class UnitStates(FactBase[Observed]):
    """State of the asked units and times of all unit files and of the given files; one command for all."""

    default = Observed

    def command(self, names: list[str], paths: list[str]) -> StringCommand:
        """Links count by their own time and by their target's: a switched certificate is a changed one."""
        script = (
            f"systemctl show --timestamp=us+utc -p {PROPERTIES} -- $1 2>/dev/null; echo '=times'; shift; "
            f"find {SYSTEM} {STAMPS} -type f -printf '%T@ %p\\n' 2>/dev/null; "
            'for p; do stat -c "%.6Y $p" -- "$p"; stat -L -c "%.6Y $p" -- "$p"; done 2>/dev/null; true'
        )
        listed = (QuoteString(path) for path in paths)
        return StringCommand("sh -c", QuoteString(script), "sh", QuoteString(" ".join(names)), *listed)

    def process(self, output: list[str]) -> Observed:
        """Blocks of KEY=value with empty lines between, then lines of `time path`."""
        split = output.index("=times")
        times: dict[str, float] = {}
        for line in output[split + 1 :]:
            when, path = line.split(" ", 1)
            times[path] = max(times.get(path, 0.0), float(when))
        blocks = "\n".join(output[:split]).split("\n\n")
        found = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
        return Observed({name: unit for unit in found for name in unit.get("Names", "").split()}, times)


def _seconds(stamp: str) -> float:
    """`Sat 2026-11-21 13:26:58.123456 UTC` as seconds since 1970; empty is never."""
    if not stamp:
        return 0.0
    return datetime.strptime(stamp[4:], "%Y-%m-%d %H:%M:%S.%f %Z").replace(tzinfo=UTC).timestamp()


def actions(unit: Unit, seen: Observed) -> list[str]:
    """Words for systemctl that settle one unit: of enable, disable, mask, start, restart, reload."""
    now = seen.units.get(unit.name, {})
    active = now.get("ActiveState") in ("active", "reloading", "activating")
    if not unit.run:
        return []
    if unit.gone or unit.masked:
        return _ended(unit, now)
    # "enabled-runtime" does not last: Debian's generator says it of a cluster whose postgresql.service is disabled.
    words = [] if now.get("UnitFileState") in ("enabled", "static", "alias") else ["enable"]
    own = [now.get("FragmentPath", ""), *now.get("DropInPaths", "").split()]
    started = _seconds(now.get("InactiveExitTimestamp", ""))
    if not active:
        return words if _skipped(now) else [*words, "start"]
    if now.get("NeedDaemonReload") == "yes" or seen.newest(own) > started:
        return [*words, "restart"]
    if unit.reload:
        started = max(started, seen.times.get(f"{STAMPS}/{unit.name}", 0.0))
    if seen.newest(list(unit.reads)) > started:
        return [*words, "reload" if unit.reload else "restart"]
    return words


def _ended(unit: Unit, now: dict[str, str]) -> list[str]:
    """A unit that failed before it ended would keep the whole host "degraded", so that only `inactive` is settled."""
    settled = now.get("ActiveState", "inactive") == "inactive"
    if unit.masked:
        return [] if settled and now.get("LoadState") == "masked" else ["mask --now"]
    return [] if settled and not now.get("UnitFileState", "").startswith("enabled") else ["disable --now"]


def _skipped(now: dict[str, str]) -> bool:
    """Whether systemd looked and found that this unit is not for this machine (a clock in a container)."""
    return now.get("ConditionResult") == "no" and bool(now.get("ConditionTimestamp"))


def _command(unit: Unit, word: str) -> StringCommand:
    """One systemctl call; a start is watched for a unit that dies at once, which systemd calls a success."""
    name = QuoteString(unit.name)
    if word == "disable --now":
        # Where the file has gone already, there is nothing to disable but a link that leads nowhere.
        stop = ["systemctl -q disable --now", name, "2>/dev/null || systemctl stop", name]
        links = f"rm -f {SYSTEM}/*.wants/{unit.name}"
        return StringCommand(*stop, f"&& {links} && {{ systemctl reset-failed", name, "2>/dev/null; true; }")
    if word == "mask --now":
        return StringCommand("systemctl mask --now", name, "&& { systemctl reset-failed", name, "2>/dev/null; true; }")
    steps: list[object] = [f"{unit.check} &&"] if unit.check else []
    # "restart" starts a stopped unit too, and reset-failed clears a start limit that an earlier run may have hit.
    steps += ["systemctl reset-failed", name, "2>/dev/null; systemctl", word, name]
    if word == "reload":
        steps += [f"&& install -d {STAMPS} && touch", QuoteString(f"{STAMPS}/{unit.name}")]
    else:
        failed = f"journalctl -n 20 --no-pager -o cat -u {unit.name} >&2; exit 1"
        skipped = f"[ $(systemctl show -P ConditionResult {unit.name}) = no ]"
        steps += ["&& systemctl is-active -q", name, f"|| {skipped} || {{ {failed}; }}"]
    return StringCommand(*steps)


_declared: WeakKeyDictionary[Host, list[Unit]] = WeakKeyDictionary()


def unit_states(wanted: list[Unit]) -> Observed:
    """As UnitStates. While nothing was changed, one question serves all units of all roles."""
    asked = wanted if changed() else [*wanted, *_declared.get(this_host(), ())]
    paths = sorted({path for unit in asked for path in unit.reads})
    return seen(UnitStates, names=sorted({unit.name for unit in asked}), paths=paths)


def units(*, name: str, wanted: list[Unit]) -> None:
    """Bring units to run with what is written now; systemd's own view is refreshed first when it is stale."""
    _declared.setdefault(this_host(), []).extend(wanted)
    _units(name=name, wanted=wanted)


@operation()
def _units(wanted: list[Unit]) -> Commands:
    now = unit_states(wanted)
    known = [now.units.get(unit.name, {}) for unit in wanted if not unit.gone]
    if any(each.get("NeedDaemonReload") == "yes" or each.get("LoadState") == "not-found" for each in known):
        yield StringCommand("systemctl daemon-reload")
    words = [(unit, word) for unit in wanted for word in actions(unit, now)]
    # Together: systemd reads all its units anew after every `enable`.
    if enabled := [QuoteString(unit.name) for unit, word in words if word == "enable"]:
        yield StringCommand("systemctl enable", *enabled)
    for unit, word in words:
        if word != "enable":
            yield _command(unit, word)
