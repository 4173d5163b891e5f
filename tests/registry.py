"""A web server for a directory, with faults: a gem source, an npm registry and a git server of a few files."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Registry:
    """`cut` breaks the connection once after so many bytes of a path; `asked` is (path, Range) of every request."""

    directory: Path
    url: str = ""
    cut: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def put(self, path: str, content: bytes) -> bytes:
        """A file below the URL."""
        (self.directory / path).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / path).write_bytes(content)
        return content

    def package(self, name: str, version: str, files: dict[str, str] | None = None) -> str:
        """An npm package; returns its integrity."""
        about = json.dumps({"name": name, "version": version})
        path = f"{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        return integrity(self.put(path, tarball({"package.json": about, **(files or {})})))


@contextmanager
def served(directory: Path, address: str = "127.0.0.1") -> Iterator[Registry]:
    """The registry, for as long as the block runs."""
    directory.mkdir(parents=True, exist_ok=True)
    registry = Registry(directory)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.partition("?")[0].lstrip("/"), self.headers.get("Range")
            registry.asked.append((path, wanted))
            file = directory / path
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if begin >= len(content) and wanted:
                self.send_error(416)
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin : registry.cut.pop(path, None)])

        def log_message(self, format: str, *args: Any) -> None:
            """The tests look at `asked` instead."""

    server = ThreadingHTTPServer((address, 0), Handler)
    registry.url = f"http://{address}:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tarball(files: dict[str, str]) -> bytes:
    """An npm package's archive."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size, member.mode = len(text.encode()), 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    return raw.getvalue()


def integrity(content: bytes) -> str:
    """As npm writes it."""
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


def repository(directory: Path, files: dict[str, str]) -> str:
    """A bare git repository with one commit, also for a server that only hands out files; returns the commit."""
    author = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@agency.test", "GIT_AUTHOR_DATE": "1786018974 +0000"}
    environment = os.environ | author | {key.replace("AUTHOR", "COMMITTER"): value for key, value in author.items()}

    def git(*words: str) -> str:
        argv = ["git", "-C", str(work), *words]
        return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    work = directory.with_suffix(".work")
    for path, text in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "everything")
    git("clone", "-q", "--bare", ".", str(directory))
    git("-C", str(directory), "update-server-info")
    return git("rev-parse", "HEAD")
