"""A machine reached by ssh, as root or through sudo."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mastodon_gov.errors import Refusal

# SSH_CONNECTION names an address on which this machine is known to answer; sudo would drop it.
AS_ROOT = (
    'if [ "$(id -u)" = 0 ]; then exec sh -c "$1"; else exec sudo -n env SSH_CONNECTION="$SSH_CONNECTION" sh -c "$1"; fi'
)


class Failed(Refusal):
    """A remote command failed; `output` is all it said on stderr, `code` its exit code."""

    def __init__(self, sentence: str, output: str, code: int) -> None:
        super().__init__(sentence)
        self.output, self.code = output, code


@dataclass(frozen=True)
class Remote:
    """`ssh` is the command up to and with the host's name, such as ("ssh", "-F", "lab/ssh_config", "builder")."""

    ssh: tuple[str, ...]

    def run(self, script: str, stdin: IO[bytes] | bytes | None = None, out: IO[bytes] | None = None) -> str:
        """Run a shell script as root; its stdout is returned or written to `out`. No secrets in the script."""
        pipe = stdin if not isinstance(stdin, bytes) else subprocess.PIPE
        with subprocess.Popen(
            self.command(script),
            stdin=pipe or subprocess.DEVNULL,
            stdout=out or subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as ssh:
            answer, errors = ssh.communicate(stdin if isinstance(stdin, bytes) else None)
        said = errors.decode(errors="replace").strip()
        self.judge(ssh.returncode, said)
        return (answer or b"").decode()

    def follow(self, script: str, hear: Callable[[str], None]) -> None:
        """Run a shell script as root that writes to stderr only; every line is heard as it comes."""
        with subprocess.Popen(
            self.command(script), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as ssh:
            assert ssh.stderr is not None  # noqa: S101  asked for above; says so to the type checker
            lines = []
            for raw in ssh.stderr:
                lines.append(raw.decode(errors="replace").rstrip())
                hear(lines[-1])
        self.judge(ssh.returncode, "\n".join(lines).strip())

    def command(self, script: str) -> list[str]:
        """The words that run a script there as root."""
        return [*self.ssh, "--", shlex.join(["sh", "-c", AS_ROOT, "sh", script])]

    def judge(self, code: int, said: str) -> None:
        """Raise for a command that failed."""
        if code == 255:
            raise Failed(f"{self.ssh[-1]}: no connection by ssh ({said}). Try `ssh {self.ssh[-1]} true`.", said, 255)
        if code:
            raise Failed(said or f"{self.ssh[-1]}: a command ended with {code}", said, code)

    def put(self, content: bytes, target: str, mask: str = "022") -> None:
        """Write a file, by a rename. `mask` is the umask, in octal digits."""
        path = shlex.quote(target)
        self.run(f"set -e; umask {mask}; cat > {path}.part; mv {path}.part {path}", stdin=content)

    def get(self, source: str, target: Path) -> None:
        """Fetch a file, however large."""
        with target.open("wb") as out:
            self.run(f"cat {shlex.quote(source)}", out=out)
