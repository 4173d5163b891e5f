"""What a stranger's machine sees of the public names. Runs anywhere (Python 3.11, standard library); reads only.

`look` gets names and addresses; every part says what it observed, or `{"error": sentence}` when it could not look.
"""

from __future__ import annotations

import base64
import http.client
import json
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

# What the product uses, and what others are found with: of all these only the web may answer.
PORTS: tuple[int, ...] = (
    *(
        21,
        22,
        23,
        25,
        53,
        80,
        110,
        111,
        143,
        389,
        443,
        445,
        465,
        587,
        636,
        873,
        993,
        1514,
        2019,
        2049,
        2375,
        3000,
        3001,
    ),
    *(3306, 4000, 4001, 5432, 5433, 5601, 6379, 6380, 7480, 8000, 8080, 8443, 9090, 9100, 9121, 9187, 9200, 9394),
    *(11211, 27017),
)
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


def ports(asked: Asked) -> dict[str, object]:
    """Open ports by address; an address at which not even the web answers was not looked at."""
    every = sorted({address for known in asked["resolved"].values() for address in known})
    found = {address: sorted(_open(address)) for address in every}
    return {
        address: seen if 443 in seen else {"error": f"{address} cannot be reached from here"}
        for address, seen in found.items()
    }


def _open(address: str) -> set[int]:
    """Ports of an address that accept a connection; all are asked at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    answered = set()
    with selectors.DefaultSelector() as waiting:
        for port in PORTS:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.connect_ex((address, port))
            waiting.register(sock, selectors.EVENT_WRITE, port)
        end = time.monotonic() + PATIENCE
        while waiting.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                sock = key.fileobj  # type: ignore[assignment]  # what we registered
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    answered.add(int(key.data))
                waiting.unregister(sock)
                sock.close()
        for key in list(waiting.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # as above
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
    asked: Asked, name: str, path: str, *, secure: bool = True, method: str = "GET", host: str = ""
) -> Asked:
    """Status, headers (small letters, all values) and the beginning of the body; status 0 when nothing was answered."""
    address = asked["resolved"][name if name in asked["names"] else asked["web"]][0]
    port = 443 if secure else 80
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
}


def look(asked: Asked) -> Asked:
    """Every part, all at the same time; then the provoking one, if it was asked for: it slows other requests too."""
    found: Asked = {"from": asked["from"], "addresses": resolve(asked)}
    asked = {**asked, "resolved": found["addresses"]}
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
