"""Files, directories and links of a role: one fact reads them all, each change is one atomic command.

Content travels on stdin: it is in no argument list, in no log and in no temporary directory. A new file is born
0600 beside its place, gets its owner and mode, is validated, and is then renamed over the old one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar
from weakref import WeakKeyDictionary

from pyinfra.api import FactBase, QuoteString, StringCommand, operation
from pyinfra.api.host import Host

from roles.lib import Commands
from roles.lib.seen import changed, seen, this_host


@dataclass(frozen=True)
class ManagedFile:
    """A regular file. `validate` is a command that gets the new file's path appended; it must exit 0."""

    path: str
    content: str
    user: str = "root"
    group: str = "root"
    mode: int = 0o644
    validate: str | None = None

    kind: ClassVar[str] = "f"  # find's letter

    @property
    def state(self) -> tuple[str, ...]:
        """What the host shows when it is settled."""
        return (self.kind, self.user, self.group, f"{self.mode:o}", sha256(self._bytes).hexdigest())

    @property
    def _bytes(self) -> bytes:
        # pyinfra ends a last line that has no newline; without one the digest would never settle.
        return (self.content if self.content.endswith("\n") or not self.content else self.content + "\n").encode()

    def make(self) -> StringCommand:
        """The command that puts the file in its place, or leaves everything as it was."""
        new = QuoteString(f"{self.path}.new")
        steps: list[object] = ["umask 077; {", "cat >", new]
        steps += [
            "&& chown",
            QuoteString(f"{self.user}:{self.group}"),
            new,
            "&& chmod",
            f"{self.mode:o}",
            new,
        ]
        if self.validate:
            steps += ["&&", self.validate, new]
        steps += ["&& mv -fT", new, QuoteString(self.path), "; } || { rm -f", new, "; exit 1; }"]
        return StringCommand(*steps, _stdin=self._bytes.decode())


@dataclass(frozen=True)
class Directory:
    """A directory; its content is left alone."""

    path: str
    user: str = "root"
    group: str = "root"
    mode: int = 0o755

    kind: ClassVar[str] = "d"

    @property
    def state(self) -> tuple[str, ...]:
        """What the host shows when it is settled."""
        return (self.kind, self.user, self.group, f"{self.mode:o}", "")

    def make(self) -> StringCommand:
        """The command that makes the directory or corrects its owner and mode."""
        return StringCommand(f"install -d -m {self.mode:o} -o", self.user, "-g", self.group, QuoteString(self.path))


@dataclass(frozen=True)
class Link:
    """A symbolic link, switched by rename."""

    path: str
    target: str

    kind: ClassVar[str] = "l"

    @property
    def state(self) -> tuple[str, ...]:
        """What the host shows when it is settled."""
        return (self.kind, "root", "root", "777", self.target)

    def make(self) -> StringCommand:
        """The command that points the link to its target."""
        new = QuoteString(f"{self.path}.new")
        return StringCommand("ln -sfnT", QuoteString(self.target), new, "&& mv -fT", new, QuoteString(self.path))


@dataclass(frozen=True)
class Absent:
    """A file or link that must not exist: removing a setting removes its effect."""

    path: str

    @property
    def state(self) -> tuple[str, ...] | None:
        """What the host shows when it is settled: nothing."""
        return None

    def make(self) -> StringCommand:
        """The command that removes it."""
        return StringCommand("rm -f --", QuoteString(self.path))


Entry = ManagedFile | Directory | Link | Absent


class FileStates(FactBase[dict[str, tuple[str, ...]]]):
    """Kind (find's letter), owner, group, mode and digest (or link target) by path; absent paths are left out."""

    default = dict

    def command(self, paths: list[str]) -> StringCommand:
        """Two processes for all paths, as three for each were a second of a deploy that changes nothing; it always
        exits 0, as a failing fact would fail the host."""
        script = (
            'find "$@" -maxdepth 0 -printf "%y|%u|%g|%m|%l|%p\\n"; '
            'for p; do shift; [ -L "$p" ] || [ ! -f "$p" ] || set -- "$@" "$p"; done; '
            '[ $# = 0 ] || sha256sum -- "$@"'
        )
        return StringCommand("sh -c", QuoteString(f"{{ {script}; }} 2>/dev/null; true"), "sh", *map(QuoteString, paths))

    def process(self, output: list[str]) -> dict[str, tuple[str, ...]]:
        """A line for each path, and one more for the digest of each regular file."""
        digests = {line[66:]: line[:64] for line in output if line[1:2] != "|"}
        found: dict[str, tuple[str, ...]] = {}
        for line in output:
            if line[1:2] == "|":
                kind, user, group, mode, target, path = line.split("|", 5)
                found[path] = (kind, user, group, mode, digests.get(path, target))
        return found


_declared: WeakKeyDictionary[Host, set[str]] = WeakKeyDictionary()


def declare(paths: Iterable[str]) -> None:
    """Paths that this run will ask for: roles say so before the first operation runs."""
    _declared.setdefault(this_host(), set()).update(paths)


def file_states(paths: list[str]) -> dict[str, tuple[str, ...]]:
    """As FileStates. While nothing was changed, one question serves all that was declared."""
    asked = paths if changed() else sorted({*paths, *_declared.get(this_host(), ())})
    return seen(FileStates, paths=asked)


def managed_files(*, name: str, entries: list[Entry]) -> None:
    """Bring every entry that differs to its state, in the order given (directories before what is in them)."""
    declare(entry.path for entry in entries)
    _managed_files(name=name, entries=entries)


@operation()
def _managed_files(entries: list[Entry]) -> Commands:
    current = file_states([entry.path for entry in entries])
    for entry in entries:
        if current.get(entry.path) != entry.state:
            yield entry.make()
