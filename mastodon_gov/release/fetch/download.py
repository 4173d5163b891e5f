"""Downloads by HTTP with the standard library: goes on where it broke off, checks, and only then gives the name."""

from __future__ import annotations

import base64
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .pieces import Piece, Unfetchable, damage

PAUSES = (0, 0, 3, 10)  # s before each attempt
TIMEOUT = 60  # s without a byte
GONE = {401, 403, 404, 410}  # asking again does not help
BROKEN = (OSError, http.client.HTTPException)


def download(piece: Piece, url: str, target: Path) -> None:
    """Bring a piece to `target`, with several attempts. Raises Unfetchable."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    problem = ""
    for pause in PAUSES:
        time.sleep(pause)
        try:
            append(url, part)
        except urllib.error.HTTPError as error:
            problem = f"it answers {error.code} {error.reason}"
            if error.code in GONE:
                break
            continue
        except BROKEN as error:
            problem = f"the download broke off or did not begin ({error})"
            continue
        if found := damage(part, piece.integrity):
            part.unlink()
            raise Unfetchable(
                f"{piece.title} (wanted by {piece.wish}): what {without_password(url)} sends has the digest {found}, "
                f"the lock says {piece.integrity}. Find out which is right. {REMEDY.format(title=piece.title)}"
            )
        part.rename(target)
        return
    raise Unfetchable(
        f"{piece.title} (wanted by {piece.wish}) cannot be had from {without_password(url)}: {problem}. "
        f"{REMEDY.format(title=piece.title)}"
    )


REMEDY = (
    "In the file given with --sources name another source (gem_source, npm_registry), or where this one lies: "
    "overrides: {{'{title}': {{url: …, integrity: sha512-…}}}}, or 'skip' if it is not needed."
)


def append(url: str, part: Path) -> None:
    """Fetch what is missing of a file; raises when fewer bytes came than were announced."""
    have = part.stat().st_size if part.exists() else 0
    with _open(url, have) as answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        expected = answer.headers.get("Content-Length")
        with part.open("ab" if resumed else "wb") as out:
            before = out.tell()
            shutil.copyfileobj(answer, out, 1 << 20)
            came = out.tell() - before
    if expected is not None and came != int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - came)


def _open(url: str, have: int) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    request = urllib.request.Request(without_password(url))  # noqa: S310  the scheme was checked with the settings
    if have:
        request.add_header("Range", f"bytes={have}-")
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return _open(url, 0)
    return answer


def without_password(url: str) -> str:
    """A URL without a name and password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
