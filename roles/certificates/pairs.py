"""What certificates the host has, and which of them nginx shall use: decided by what is there, not by what was done.

A pair is a directory with `fullchain.pem` and `privkey.pem`. A link names the pair in force and is switched by rename.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256

from pyinfra.api import FactBase, QuoteString, StringCommand

from mastodon_gov.instance import Node

ROOT = "/etc/mastodon-gov/tls"
CURRENT = f"{ROOT}/current"
PLACEHOLDER = f"{ROOT}/placeholder"
# The key that never leaves the host, and the request for its certificate.
REQUEST = f"{ROOT}/request"
LETSENCRYPT = "/etc/letsencrypt"
NAMES = re.compile(r"DNS:([^,\s]+)")


@dataclass(frozen=True)
class Pair:
    """A certificate with its key. `fits`: the key is the certificate's. `server` is the ACME directory it came from."""

    names: frozenset[str] = frozenset()
    fits: bool = False
    expired: bool = True
    server: str = ""


@dataclass(frozen=True)
class Seen:
    """Pairs by directory, the directory in force, the pairs of given chains, and the request for a certificate."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    current: str = ""
    given: frozenset[str] = frozenset()
    request: str = ""
    request_names: frozenset[str] = frozenset()

    def pair(self, path: str) -> Pair:
        """A pair that is not there fits nothing."""
        return self.pairs.get(path, Pair())


SCRIPT = f"""\
for d in {ROOT}/placeholder {ROOT}/given-* {LETSENCRYPT}/live/*; do
  [ -e "$d/fullchain.pem" ] || continue
  echo "=pair $d"
  openssl x509 -in "$d/fullchain.pem" -noout -ext subjectAltName
  of=$(openssl x509 -in "$d/fullchain.pem" -noout -pubkey)
  [ -n "$of" ] && [ "$of" = "$(openssl pkey -in "$d/privkey.pem" -pubout)" ] && echo =fits
  openssl x509 -in "$d/fullchain.pem" -noout -checkend 0 >&2 && echo =lives
  sed -n "s/^server = /=server /p" "{LETSENCRYPT}/renewal/${{d##*/}}.conf"
done
echo "=current $(readlink {CURRENT})"
echo =request
cat {REQUEST}/request.csr
openssl req -in {REQUEST}/request.csr -noout -text | grep DNS:
true
"""


class Pairs(FactBase[Seen]):
    """Everything about certificates, in one command."""

    default = Seen

    def command(self) -> StringCommand:
        """Prints sections that begin with `=`; complaints of openssl mean: not usable, and are not kept."""
        return StringCommand("sh -c", QuoteString(SCRIPT), "2>/dev/null")

    def process(self, output: list[str]) -> Seen:
        """Pairs, then the link, then the request."""
        text = "\n".join(output)
        rest, _, request = text.partition("\n=request")
        head, _, current = rest.rpartition("=current ")
        blocks = [block.partition("\n") for block in head.split("=pair ")[1:]]
        pairs = {path: _pair(told) for path, _, told in blocks}
        pem = re.search(r"-----BEGIN.*-----END CERTIFICATE REQUEST-----\n?", request, re.DOTALL)
        return Seen(
            pairs=pairs,
            current=current.strip(),
            given=frozenset(path for path in pairs if path.startswith(f"{ROOT}/given-")),
            request=pem.group().strip() + "\n" if pem else "",
            request_names=frozenset(NAMES.findall(request)),
        )


def _pair(told: str) -> Pair:
    lines = told.splitlines()
    server = next((line.split(" ", 1)[1] for line in lines if line.startswith("=server ")), "")
    return Pair(frozenset(NAMES.findall(told)), "=fits" in lines, "=lives" not in lines, server)


def given(node: Node) -> str:
    """Directory for the chain we were given; another chain is another directory, so that the two never mix."""
    return f"{ROOT}/given-{sha256(node.certificate.chain.encode()).hexdigest()[:8]}"


def wanted(node: Node) -> str:
    """The pair that shall be in force; "" while there is none yet to wait for."""
    if node.instance.certificates.acme:
        return f"{LETSENCRYPT}/live/{node.instance.domain.web}"
    return given(node) if node.certificate.chain else ""


def ready(node: Node, seen: Seen) -> bool:
    """Whether the wanted pair can be used: the right names, its own key, not run out, from the right server."""
    pair, names = seen.pair(wanted(node)), set(node.instance.public_names)
    if not pair.fits or pair.expired:
        return False
    if acme := node.instance.certificates.acme:
        return pair.names == names and pair.server == acme.directory
    return names <= pair.names


def in_force(node: Node, seen: Seen) -> str:
    """The pair to use now: the wanted one; until it is ready the one in use, if that works at all."""
    if ready(node, seen):
        return wanted(node)
    return seen.current if seen.pair(seen.current).fits else PLACEHOLDER
