"""A toy in Mastodon's place: toy_application PORT. It tells what reached it, and fails when asked to.

/toy/500?headers=rails   any status, with or without the headers that Rails sends
/api/v1/streaming        echoes one WebSocket frame's bytes, or sends an event and keeps the line open
"""

from __future__ import annotations

import json
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(sys.argv[1])
RAILS = {
    "Strict-Transport-Security": "max-age=1",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'",
    "X-Runtime": "0.1",
}
EMBED = {"Content-Security-Policy": "default-src 'none'", "Referrer-Policy": "same-origin"}


class Toy(BaseHTTPRequestHandler):
    """Answers every method alike."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Whatever the path says."""
        if self.path.startswith("/api/v1/streaming"):
            self.stream()
            return
        found = re.match(r"/toy/(\d+)", self.path) or re.match(r".*[?&]status=(\d+)", self.path)
        sent = {"headers=rails": RAILS, "headers=embed": EMBED}
        more = next((headers for word, headers in sent.items() if word in self.path), {})
        if "slow" in self.path:
            time.sleep(1)
        told = {
            "port": PORT,
            "method": self.command,
            "path": self.path,
            "headers": list(self.headers.items()),
            "body": len(self.rfile.read(int(self.headers.get("Content-Length", 0)))),
        }
        self.answer(int(found[1]) if found else 200, json.dumps(told).encode(), more)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def answer(self, status: int, body: bytes, more: dict[str, str]) -> None:
        """One whole answer."""
        self.send_response(status)
        if self.path.startswith("/long/"):
            more = {"Location": "https://social.agency.test/@" + self.path[6:]}
        for name, value in {"Content-Type": "text/html; charset=utf-8", "Content-Length": len(body), **more}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self) -> None:
        """The line stays open: what arrives late must still arrive, and at once."""
        if (self.headers.get("Upgrade") or "").lower() == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(b"echo " + self.rfile.read(5))
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"event: first\n\n")
            self.wfile.flush()
            time.sleep(8)
        self.close_connection = True


ThreadingHTTPServer(("127.0.0.1", PORT), Toy).serve_forever()
