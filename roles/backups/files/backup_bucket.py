"""The backup bucket through the key pgBackRest has: get, put and list, signed by hand (AWS Signature Version 4).

The standard library has no S3 client, and a production host gets no packages for three requests. Source: "Signature
Calculations for the Authorization Header: Transferring Payload in a Single Chunk", Amazon S3 API Reference.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import ssl
import time
from base64 import b64encode
from typing import Any
from urllib.parse import quote, urlencode

TIMEOUT = 20


class Refused(Exception):
    """The store answered with an error, or not at all; the text says which."""


def signed(conf: dict[str, str], method: str, target: str, body: bytes, now: float) -> dict[str, str]:
    """Headers that this request must carry. `target` is encoded already; `now` in seconds since 1970."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{stamp[:8]}/{conf['repo1-s3-region']}/s3/aws4_request"
    port = conf.get("repo1-storage-port", "443")
    digest = hashlib.sha256(body).hexdigest()
    headers = {
        # A bucket with object lock demands a checksum.
        "content-md5": b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        "host": conf["repo1-s3-endpoint"] + ("" if port == "443" else f":{port}"),
        "x-amz-content-sha256": digest,
        "x-amz-date": stamp,
    }
    names, (path, _, query) = ";".join(headers), target.partition("?")
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join([method, path, query, lines, names, digest])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{conf['repo1-s3-key-secret']}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    credential = f"{conf['repo1-s3-key']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers


def request(
    conf: dict[str, str], method: str, key: str = "", body: bytes = b"", asked: dict[str, str] | None = None
) -> bytes:
    """The answer's body. Raises Refused."""
    path = quote(f"/{conf['repo1-s3-bucket']}/{key}" if key else f"/{conf['repo1-s3-bucket']}")
    query = urlencode(sorted((asked or {}).items()), quote_via=quote, safe="")
    target = f"{path}?{query}" if query else path
    headers = signed(conf, method, target, body, time.time())
    trust = ssl.create_default_context(cafile=conf.get("repo1-storage-ca-file"))
    host, port = conf["repo1-s3-endpoint"], int(conf.get("repo1-storage-port", "443"))
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=trust)
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"{host}: {error}") from None
    finally:
        connection.close()
    if answer.status >= 300:
        code = re.search(rb"<Code>(\w+)</Code>", text)
        raise Refused(
            f"{host} answered {method} {path} with {answer.status} {code[1].decode() if code else ''}".strip()
        )
    return text


def keys(conf: dict[str, str], prefix: str) -> list[str]:
    """All keys below a prefix, in order. Ours hold no character that XML would spell otherwise."""
    found: list[str] = []
    more: dict[str, str] = {}
    while True:
        text = request(conf, "GET", asked={"list-type": "2", "prefix": prefix, **more}).decode()
        found += re.findall(r"<Key>([^<]+)</Key>", text)
        token = re.search(r"<NextContinuationToken>([^<]+)</NextContinuationToken>", text)
        if not token:
            return sorted(found)
        more = {"continuation-token": token[1]}


def lock(conf: dict[str, str]) -> dict[str, Any]:
    """For how many `days`, and in which `mode`, nobody can remove what is written now; 0 and "" without a lock."""
    try:
        text = request(conf, "GET", asked={"object-lock": ""}).decode()
    except Refused as error:
        none = {"mode": "", "days": 0}
        return none if "ObjectLockConfigurationNotFoundError" in str(error) else {"error": str(error)}
    mode, length = re.search(r"<Mode>(\w+)</Mode>", text), re.search(r"<(Days|Years)>(\d+)</", text)
    days = int(length[2]) * (365 if length[1] == "Years" else 1) if length else 0
    return {"mode": mode[1] if mode else "", "days": days}
