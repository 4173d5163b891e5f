"""What a stranger's machine sees of the public names. Runs anywhere (Python 3.11, standard library); reads only.

Every part says what it observed, or `{"error": sentence}` when it could not look.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

# What the product uses, and what scanners of others find open: nothing of it may answer but the web.
PORTS: tuple[int, ...] = (
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
    873,
    993,
    1514,
    2049,
    2375,
    3000,
    3001,
    3306,
)
PORTS += (4000, 4001, 5432, 5433, 5601, 6379, 6380, 8000, 8080, 8443, 9090, 9100, 9121, 9187, 9200, 9394, 11211, 27017)
SECONDS = 2.0  # a dropped packet gets no answer


def addresses(asked: dict[str, Any]) -> dict[str, list[str]]:
    """Addresses of each public name: the instance's own table, or DNS."""
    found = {}
    for name, known in asked["addresses"].items():
        answers = known or [str(row[4][0]) for row in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)]
        found[name] = sorted(set(answers))
    return found


PARTS: dict[str, Callable[[dict[str, Any]], object]] = {"addresses": addresses}


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """Every part."""
    found: dict[str, Any] = {"from": asked["from"]}
    for name, part in PARTS.items():
        try:
            found[name] = part(asked)
        except (OSError, ValueError, KeyError) as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    return found


if __name__ == "__main__":
    print(json.dumps({}))
