"""Settings of the running system that no file of ours decides alone: looked at, compared, mended; one fact for all."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from roles.lib import Commands
from roles.lib.progress import tell_difference
from roles.lib.seen import seen


@dataclass(frozen=True)
class Live:
    """`look` is a shell command that prints one value, and prints `wanted` where there is nothing to set (a kernel
    that belongs to somebody else). `mend` runs when it printed something else; then it must print `wanted`."""

    what: str
    look: str
    wanted: str
    mend: str


class Looks(FactBase[list[str]]):
    """What each look prints, in order; spaces and line ends become one space."""

    default = list

    def command(self, looks: list[str]) -> StringCommand:
        """One shell for all; it always exits 0, as a failing fact would fail the host."""
        return StringCommand("sh -c", QuoteString("\n".join(map(_line, looks)) + "\ntrue"))

    def process(self, output: list[str]) -> list[str]:
        """One value a line."""
        return [" ".join(line.split()) for line in output]


def _line(look: str) -> str:
    return f"echo = $({{ {look}; }} 2>/dev/null)"


@operation()
def live(wanted: list[Live]) -> Commands:
    """Mend what differs; a mend that does not hold is a failure, or every later run would mend it again."""
    looked = seen(Looks, looks=[each.look for each in wanted])
    for each, found in zip(wanted, looked, strict=True):
        if found != f"= {each.wanted}".rstrip():
            tell_difference(f"{each.what}: found {found[2:200]!r}, to be {each.wanted!r}")
            failed = f"{each.what}: it is still not {each.wanted!r}. Look at it with: {each.look}"
            same = f'[ "$(echo $({{ {each.look}; }} 2>/dev/null))" = "$1" ]'
            # An operation before this one may have mended it.
            script = f'{same} && exit 0; {{ {each.mend}; }} && {same} || {{ echo "$2" >&2; exit 1; }}'
            yield StringCommand("sh -c", QuoteString(script), "sh", QuoteString(each.wanted), QuoteString(failed))
