"""Certificates: authorities the host trusts, and the pair nginx shows, from ACME, an internal CA or given files.

`certificates` comes before the proxy and leaves a pair that nginx can start with, if need be a placeholder; `issue`
comes after it, because an ACME server asks the proxy.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from mastodon_gov.instance import Node
from roles.certificates.authorities import trusted_authorities
from roles.certificates.pairs import (
    CURRENT,
    LETSENCRYPT,
    PLACEHOLDER,
    REQUEST,
    ROOT,
    Pairs,
    Seen,
    given,
    in_force,
    ready,
    wanted,
)
from roles.lib import Commands, deploy
from roles.lib.files import Absent, Directory, Entry, Link, ManagedFile, managed_files
from roles.lib.live import Live, live
from roles.lib.packages import packages
from roles.lib.render import facts_program, managed
from roles.lib.seen import seen
from roles.lib.units import Unit, units
from roles.nginx.role import BUNDLE, CHALLENGES, NGINX

PACKAGES = ["ca-certificates", "certbot", "openssl"]
UNITS = [Unit("certbot.timer")]
HOOK = f"{LETSENCRYPT}/renewal-hooks/deploy/60-mfg-nginx"
PROXY = "/etc/systemd/system/certbot.service.d/60-mfg.conf"

# Made beside its place and renamed; nginx needs some pair before anybody can sign the right one.
MAKE_PLACEHOLDER = f"""\
umask 077; rm -rf {PLACEHOLDER}.new && mkdir {PLACEHOLDER}.new && cd {PLACEHOLDER}.new || exit 1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=placeholder.invalid \
  -addext subjectAltName=DNS:placeholder.invalid -keyout privkey.pem -out fullchain.pem 2>/dev/null || exit 1
rm -rf {PLACEHOLDER} && mv -T {PLACEHOLDER}.new {PLACEHOLDER}
"""
# The key stays when only the names change.
MAKE_REQUEST = f"""\
umask 077; mkdir -p {REQUEST} && cd {REQUEST} || exit 1
[ -s privkey.pem ] || {{ openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out privkey.new \
  && mv privkey.new privkey.pem; }} || exit 1
openssl req -new -key privkey.pem -subj "/CN=$1" -addext "subjectAltName=$2" -out request.new \
  && mv request.new request.csr
"""


def environment(node: Node) -> dict[str, str]:
    """What certbot must know to reach its server: Debian's trust store, and the web proxy if there is one."""
    acme, proxy = node.instance.certificates.acme, node.instance.network.http_proxy
    found = {"REQUESTS_CA_BUNDLE": BUNDLE}
    if acme and proxy and (urlsplit(acme.directory).hostname or "") not in node.instance.addresses:
        found["HTTPS_PROXY"] = proxy
    return found


def files(node: Node) -> list[Entry]:
    """Directories, the pair of a given chain, and what renewals need."""
    entries: list[Entry] = [Directory("/etc/mastodon-gov"), Directory(ROOT, mode=0o700), Directory(CHALLENGES)]
    entries.append(facts_program("certificates"))
    if node.certificate.chain:
        entries += _given_pair(node)
    if not node.instance.certificates.acme:
        return [*entries, Absent(HOOK), Absent(PROXY)]
    return [
        *entries,
        *(Directory(path) for path in (LETSENCRYPT, f"{LETSENCRYPT}/renewal-hooks", Path(HOOK).parent.as_posix())),
        managed(f"certificates{HOOK}", HOOK, node, mode=0o755),
        Directory("/etc/systemd/system/certbot.service.d"),
        managed(f"certificates{PROXY}", PROXY, node, environment=environment(node)),
    ]


def _given_pair(node: Node) -> list[Entry]:
    directory, key = given(node), node.certificate.key.get_secret_value()
    own = ManagedFile(f"{directory}/privkey.pem", key, mode=0o600)
    return [
        Directory(directory, mode=0o700),
        own if key else Link(f"{directory}/privkey.pem", f"{REQUEST}/privkey.pem"),
        ManagedFile(f"{directory}/fullchain.pem", node.certificate.chain),
    ]


def key_mode() -> Live:
    """Whoever wrote the key in force, only root reads it."""
    key = f"{CURRENT}/privkey.pem"
    return Live("the key", f"stat -L -c '%U:%G %a' {key}", "root:root 600", f"chown root:root {key} && chmod 600 {key}")


@operation()
def usable_pair(node: Node) -> Commands:
    """Point nginx to the best pair there is, and have a request ready where an internal CA signs."""
    now = seen(Pairs)
    if node.instance.certificates.internal_ca:
        yield from _request(node, now)
    target = in_force(node, now)
    if target == PLACEHOLDER and not now.pair(PLACEHOLDER).fits:
        yield StringCommand("sh -c", QuoteString(MAKE_PLACEHOLDER))
    if target != now.current:
        yield Link(CURRENT, target).make()


def _request(node: Node, now: Seen) -> Commands:
    names, local = node.instance.public_names, Path(node.certificate.request)
    if set(names) != now.request_names:
        listed = ",".join(f"DNS:{name}" for name in names)
        yield StringCommand("sh -c", QuoteString(MAKE_REQUEST), "sh", QuoteString(names[0]), QuoteString(listed))
        yield FunctionCommand(_fetch_request, (local,), {})
    elif not local.exists() or local.read_text() != now.request:
        yield FunctionCommand(_fetch_request, (local,), {})
    if not ready(node, now):
        why = "there is no signed certificate yet" if not node.certificate.chain else "it does not fit the request"
        logger.warning(
            f"NOTE: {node.name}: nginx does not show a certificate of your CA, because {why}. Have {local} signed for "
            f"{', '.join(names)}, save it with its chain as {local.with_suffix('.pem')}, then run deploy again."
        )


def _fetch_request(local: Path) -> None:
    """Put the host's request beside the instance's other files; it holds nothing secret."""
    local.parent.mkdir(parents=True, exist_ok=True)
    draft = local.with_name(f".{local.name}.new")
    draft.write_text(host.get_fact(Pairs).request)
    draft.rename(local)


def certbot(node: Node) -> StringCommand:
    """Ask the ACME server for one certificate with all public names; certbot keeps how, and renews the same way."""
    acme, names = node.instance.certificates.acme, node.instance.public_names
    assert acme  # noqa: S101 - the caller asked
    words = [
        "umask 027; env",
        *(f"{key}={value}" for key, value in environment(node).items()),
        "certbot certonly -n --agree-tos",
    ]
    words += ["--no-eff-email --key-type ecdsa --elliptic-curve secp384r1 --webroot -w", CHALLENGES]
    words += ["--force-renewal --renew-with-new-domains -m", acme.contact, "--server", acme.directory]
    words += ["--cert-name", names[0], *(f"-d {name}" for name in names)]
    failed = (
        f"{node.name}: {acme.directory} gave no certificate for {', '.join(names)}; its reason stands above. "
        "nginx goes on with the certificate it had. Check that these names lead to this host in DNS, that port 80 is "
        "open to the world, and certificates.acme in instance.yaml; then run deploy again."
    )
    return StringCommand(*words, "|| { echo", QuoteString(failed), ">&2; exit 1; }")


@operation()
def issued(node: Node) -> Commands:
    """Get a certificate by ACME if names, server or time ask for one; then remove the pairs nobody uses any more."""
    now = seen(Pairs)
    target = in_force(node, now)
    if node.instance.certificates.acme and not ready(node, now):
        target = wanted(node)
        yield certbot(node)
        yield Link(CURRENT, target).make()
    for path in sorted(now.given - {target, given(node)}):
        yield StringCommand("rm -rf --", QuoteString(path))
    retired = f"{LETSENCRYPT}/live/{node.instance.domain.web}"
    if not node.instance.certificates.acme and retired in now.pairs and target != retired:
        yield StringCommand("certbot delete -n --cert-name", QuoteString(node.instance.domain.web))


@deploy("Certificates")
def certificates(node: Node) -> None:
    """Everything but what needs a running proxy."""
    packages(name="Install packages", names=_packages(node))
    trusted_authorities(name="Trust authorities", texts=list(node.instance.trusted_ca))
    if "proxy" in node.groups:
        managed_files(name="Write files", entries=files(node))
        usable_pair(name="Choose the certificate", node=node)


def _packages(node: Node) -> list[str]:
    return [name for name in PACKAGES if name != "certbot" or ("proxy" in node.groups and _acme(node))]


def _acme(node: Node) -> bool:
    return node.instance.certificates.acme is not None


def renewal_units(node: Node) -> list[Unit]:
    """What renews the certificate; where another issuer has taken ACME's place, Debian's timer ends."""
    return UNITS if _acme(node) else [Unit(f"certbot.{kind}", gone=True) for kind in ("timer", "service")]


@deploy("Public certificate")
def issue(node: Node) -> None:
    """After the proxy: it answers the ACME server, and learns of the new certificate."""
    issued(name="Get the certificate", node=node)
    live(name="Keep the key to root", wanted=[key_mode()])
    units(name="Run units", wanted=[NGINX, *renewal_units(node)])
