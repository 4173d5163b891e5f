"""Authorities the host trusts besides Debian's: `instance.trusted_ca` in the system's store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from roles.lib import Commands
from roles.lib.files import ManagedFile
from roles.nginx.role import BUNDLE

LOCAL = "/usr/local/share/ca-certificates"
ONE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Store:
    """Our files by path with their digests; `stale`: the bundle is older than they are, so a run died in between."""

    digests: dict[str, str] = field(default_factory=dict)
    stale: bool = False


class TrustStore(FactBase[Store]):
    """What we have put into the system's store."""

    default = Store

    def command(self) -> str:
        """The directory itself counts, because a removed file leaves no other trace."""
        return (
            f"find {LOCAL} -newer {BUNDLE} 2>/dev/null | grep -q . && echo =stale; "
            f"sha256sum {LOCAL}/mfg-*.crt 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> Store:
        """Lines of `digest  path`."""
        rows = [line.split("  ", 1) for line in output if "  " in line]
        return Store({path: digest for digest, path in rows}, "=stale" in output)


def authorities(texts: list[str]) -> list[ManagedFile]:
    """One file for each certificate: update-ca-certificates wants no more in one."""
    found = [match.group() + "\n" for text in texts for match in ONE.finditer(text)]
    return [ManagedFile(f"{LOCAL}/mfg-{n}.crt", pem) for n, pem in enumerate(dict.fromkeys(found), 1)]


@operation()
def trusted_authorities(texts: list[str]) -> Commands:
    """Add what is missing, remove what is not wanted any more, and make the bundle anew."""
    store, files = host.get_fact(TrustStore), authorities(texts)
    wrong = [file for file in files if store.digests.get(file.path) != sha256(file.content.encode()).hexdigest()]
    retired = sorted(store.digests.keys() - {file.path for file in files})
    for file in wrong:
        yield file.make()
    if retired:
        yield StringCommand("rm -f --", *(QuoteString(path) for path in retired))
    if wrong or retired or store.stale:
        yield StringCommand("update-ca-certificates --fresh >/dev/null")
