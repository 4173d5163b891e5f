"""What a stranger's machine sees of the public names. Runs anywhere (Python 3.11, standard library); reads only.

`look` gets names and addresses; every part says what it observed, or `{"error": sentence}` when it could not look.
"""

from __future__ import annotations

import base64
import errno
import http.client
import json
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

# What the product uses, and what others are found with: of all these only the web may answer.
_PORTS = (
    "21 22 23 25 53 80 110 111 143 389 443 445 465 587 636 873 993 1514 2019 2049 2375 3000 3001 "
    "3306 4000 4001 5432 5433 5601 6379 6380 7480 8000 8080 8443 9090 9100 9121 9187 9200 9394 11211 27017"
)
PORTS = tuple(map(int, _PORTS.split()))
HTTPS = 443
PROBE = "mastodon-gov-audit-probe"  # an object that nobody may make, and so none can delete
PATIENCE = 2.0  # seconds for a port; a packet that a firewall drops gets no answer
SECONDS = 15.0  # for one answer over HTTP
BODY = 20_000  # bytes of a page that are kept
DOCUMENT = 1_000_000  # bytes of JSON: half a document says nothing, and rules in four languages are long
VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
# OpenSSL's names for what must be refused below TLS 1.3.
WEAK = {"without forward secrecy": "kRSA", "without AEAD": "ALL:!AESGCM:!CHACHA20:!AESCCM:!ARIAGCM"}
# This machine is not connected to such a network, or its kernel does not know it.
NO_NETWORK = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
NO_WAY = "no way"
OURS = ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE")  # refused by this side, before anything was sent
Asked = dict[str, Any]


def resolve(asked: Asked) -> dict[str, list[str]]:
    """Addresses of each public name: what DNS says here, or the instance's own table where DNS knows none."""
    found = {}
    for name in asked["names"]:
        try:
            told = [str(row[4][0]) for row in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)]
        except OSError:
            told = asked["addresses"]
        if not told:
            raise OSError(f"{name} has no address")
        found[name] = sorted(set(told))
    return found


def answering_first(resolved: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same, in the order to be used: this machine may have no way to some of the addresses (IPv6)."""
    every = sorted({address for known in resolved.values() for address in known})
    with ThreadPoolExecutor(len(every)) as pool:
        answers = dict(zip(every, pool.map(_answers, every), strict=True))
    return {name: sorted(known, key=lambda address: not answers[address]) for name, known in resolved.items()}


def _answers(address: str, port: int = HTTPS) -> bool:
    try:
        socket.create_connection((address, port), PATIENCE).close()
    except OSError:
        return False
    return True


def ports(asked: Asked) -> dict[str, object]:
    """Open ports by address, and NO_WAY for one of a network that this machine is not connected to. Another address at
    which not even the web answers was not looked at."""
    every = sorted({address for known in asked["resolved"].values() for address in known})
    with ThreadPoolExecutor(len(every)) as pool:
        return dict(zip(every, pool.map(_ports, every), strict=True))


def _ports(address: str) -> object:
    try:
        found = sorted(_open(address))
    except OSError as error:
        return NO_WAY if error.errno in NO_NETWORK else {"error": f"{address}: {error}"}
    return found if HTTPS in found else {"error": f"{address} cannot be reached from here"}


def _open(address: str) -> set[int]:
    """Ports of an address that accept a connection; all are asked at once. Raises OSError where none can be asked."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    answered = set()
    with selectors.DefaultSelector() as waiting, ExitStack() as sockets:
        for port in PORTS:
            sock = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setblocking(False)
            # What failed here already has no error left to ask for, and would look like a connection below.
            began = sock.connect_ex((address, port))
            if began in NO_NETWORK:
                raise OSError(began, os.strerror(began))
            if began in (0, errno.EINPROGRESS):
                waiting.register(sock, selectors.EVENT_WRITE, port)
        end = time.monotonic() + PATIENCE
        while waiting.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                sock = key.fileobj  # type: ignore[assignment]  # what we registered
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    answered.add(int(key.data))
                waiting.unregister(sock)
    return answered


def _trusting(asked: Asked) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for text in asked["trusted_ca"]:
        context.load_verify_locations(cadata=text)
    return context


def _careless() -> ssl.SSLContext:
    """Tries what is old: it verifies nothing, because only the handshake counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _shake(asked: Asked, context: ssl.SSLContext, name: str) -> tuple[str, str, bytes]:
    """Version, cipher and certificate of a handshake. Raises ssl.SSLError or ConnectionResetError when refused."""
    address = asked["resolved"][asked["web"]][0]
    with (
        socket.create_connection((address, 443), SECONDS) as sock,
        context.wrap_socket(sock, server_hostname=name) as secure,
    ):
        cipher = secure.cipher() or ("", "", 0)
        return str(secure.version()), cipher[0], secure.getpeercert(binary_form=True) or b""


def _tried(asked: Asked, context: ssl.SSLContext, name: str) -> str:
    try:
        version, cipher, _ = _shake(asked, context, name)
    except (ssl.SSLError, ConnectionResetError) as error:
        if getattr(error, "reason", "") in OURS:
            raise OSError(f"this machine's OpenSSL does not speak it ({error})") from None
        return "refused"
    return f"accepted ({version}, {cipher})"


def tls(asked: Asked) -> dict[str, object]:
    """What each version and each weak family of ciphers gets; what this machine's OpenSSL cannot speak is an error."""
    found: dict[str, object] = {}
    for name, version in VERSIONS.items():
        context = _careless()
        try:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
        except (ValueError, ssl.SSLError):
            found[name] = {"error": f"this machine's OpenSSL does not speak TLS {name}"}
            continue
        found[name] = _or_error(partial(_tried, asked, context, asked["web"]))
    for name, ciphers in WEAK.items():
        context = _careless()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        found[name] = _or_error(partial(_tried, asked, context, asked["web"]))
    found["unknown name"] = _tried(asked, _careless(), "nobody-gave-us-this-name.invalid")
    return found


def certificates(asked: Asked) -> dict[str, object]:
    """The certificate of each public name in base64 (DER), and whether it verifies with what is trusted here."""
    found: dict[str, object] = {}
    for name in asked["names"]:
        _, _, shown = _shake(asked, _careless(), name)
        try:
            _shake(asked, _trusting(asked), name)
            verifies = "yes"
        except ssl.SSLCertVerificationError as error:
            verifies = error.verify_message
        found[name] = {"der": base64.b64encode(shown).decode(), "verifies": verifies}
    return found


def request(  # noqa: PLR0913
    asked: Asked,
    name: str,
    path: str,
    *,
    secure: bool = True,
    method: str = "GET",
    host: str = "",
    at: tuple[str, int] | None = None,
) -> Asked:
    """Status, headers (small letters, all values) and the beginning of the body; status 0 when nothing was answered.
    `at`: address and port, where they are not the web's."""
    known = name if name in asked["names"] else asked["web"]
    address, port = at or (asked["resolved"][known][0], HTTPS if secure else 80)
    connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
    try:
        sock: socket.socket = socket.create_connection((address, port), SECONDS)
        connection.sock = _careless().wrap_socket(sock, server_hostname=name) if secure else sock
        connection.request(method, path, headers={"Host": host or name, "User-Agent": "mastodon-gov audit"})
        answer = connection.getresponse()
        most = DOCUMENT if "json" in (answer.getheader("Content-Type") or "") else BODY
        body = answer.read(most).decode("utf-8", "replace")
        headers: dict[str, list[str]] = {}
        for key, value in answer.getheaders():
            headers.setdefault(key.lower(), []).append(value)
    except (http.client.HTTPException, ConnectionError):
        return {"status": 0, "headers": {}, "body": ""}
    finally:
        connection.close()
    return {"status": answer.status, "headers": headers, "body": body}


def pages(asked: Asked) -> dict[str, object]:
    """What every address of interest answers."""
    web, media, owner = asked["web"], asked["media"], asked["owner"]
    nothing = "/there-is-no-such-page-for-the-audit"
    wanted: dict[str, Callable[[], Asked]] = {
        f"https://web{path}": partial(request, asked, web, path)
        for path in (
            *("/", "/about", nothing, "/auth/sign_in", "/auth/sign_up", f"/@{owner}", "/api/v2/instance"),
            *("/nodeinfo/2.0", "/.well-known/security.txt", "/metrics", "/sidekiq", "/pghero", "/.env", "/.git/config"),
            "/health",
        )
    }
    wanted |= {
        f"https://media{path}": partial(request, asked, media, path)
        for path in ("/", nothing, "/?list-type=2", f"/{asked['bucket']}/")
    }
    wanted["http://web/"] = partial(request, asked, web, "/", secure=False)
    wanted["http://media/"] = partial(request, asked, media, "/", secure=False)
    unknown = "nobody-gave-us-this-name.invalid"
    wanted["http://unknown/"] = partial(request, asked, unknown, "/", secure=False)
    wanted["https://web/ as unknown"] = partial(request, asked, web, "/", host=unknown)
    with ThreadPoolExecutor(6) as pool:
        answers = {name: pool.submit(_or_error, ask) for name, ask in wanted.items()}
    return {name: answer.result() for name, answer in answers.items()}


def storage(asked: Asked) -> dict[str, object]:
    """What the S3 service itself answers without a key: for a list of each bucket and, with the probe, for an object
    that is put and deleted, there and by the media name."""
    host, port = asked["storage"]["host"], asked["storage"]["port"]
    try:
        addresses = {str(row[4][0]): None for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:
        addresses = dict.fromkeys(asked["storage"]["addresses"])
    if (address := next((each for each in addresses if _answers(each, port)), None)) is None:
        raise OSError(f"{host} cannot be reached from here")
    name = host if port == HTTPS else f"{host}:{port}"
    ask = partial(request, asked, host, host=name, at=(address, port))
    buckets = asked["storage"]["buckets"]
    wanted: dict[str, Callable[[], Asked]] = {
        f"GET /{bucket}?list-type=2": partial(ask, f"/{bucket}?list-type=2") for bucket in buckets
    }
    for method in ("PUT", "DELETE") if asked["probe"] else ():
        wanted |= {
            f"{method} /{bucket}/{PROBE}": partial(ask, f"/{bucket}/{PROBE}", method=method) for bucket in buckets
        }
        wanted[f"{method} https://media/{PROBE}"] = partial(request, asked, asked["media"], f"/{PROBE}", method=method)
    return {words: _or_error(each) for words, each in wanted.items()}


def _or_error(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except OSError as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def sign_ins(asked: Asked) -> list[int]:
    """Provokes: the statuses of 30 fast tries to sign in, without an account and without a password."""
    tries = [lambda: request(asked, asked["web"], "/auth/sign_in", method="POST") for _ in range(30)]
    with ThreadPoolExecutor(10) as pool:
        return [answer["status"] for answer in pool.map(lambda ask: ask(), tries)]


PARTS: dict[str, Callable[[Asked], object]] = {
    "ports": ports,
    "tls": tls,
    "certificates": certificates,
    "pages": pages,
    "storage": storage,
}


def look(asked: Asked) -> Asked:
    """Every part, all at the same time; then the provoking one, if it was asked for: it slows other requests too."""
    found: Asked = {"from": asked["from"], "addresses": resolve(asked)}
    asked = {**asked, "resolved": answering_first(found["addresses"])}
    with ThreadPoolExecutor(len(PARTS)) as pool:
        running = {name: pool.submit(part, asked) for name, part in PARTS.items()}
    for name, answer in running.items():
        try:
            found[name] = answer.result()
        except Exception as error:  # whatever it is: this part was not seen, and the others are
            found[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    if asked["probe"]:
        found["sign_ins"] = sign_ins(asked)
    return found


if __name__ == "__main__":
    import sys

    print(json.dumps(look(json.loads(sys.argv[1]))))
