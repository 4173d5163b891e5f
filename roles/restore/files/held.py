"""A restored instance keeps to itself until somebody opens it: administrators reach it, and it reaches nobody."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import Refused, configured, run
else:  # on the host the programs lie side by side
    from catalogue import Refused, configured, run

LIB = "/usr/local/lib/mastodon-gov"
HELD_RULES, HELD_TEMPLATE = Path("/etc/nftables.d/60-held.nft"), Path(f"{LIB}/held.nft")
HELD_PAGE = Path("/etc/nginx/held/held.conf")
RESOLVERS = Path("/etc/resolv.conf")
# Until it is removed, `tootctl media remove-orphans` is refused (mastodon-run): newer pictures would look like orphans.
RESTORED = Path("/var/lib/mastodon-gov/restored")


def hold(needed: bool = True) -> None:
    """Nobody but the administrators reaches the application, and it reaches nobody: no mail, no federation. Both files
    outlive a reboot and a deploy; `open` removes them. `needed`: whether it cannot be done without the store of the
    first repository, where the pictures lie too. The rules are those of the application: no repository is behind them.
    """
    conf = configured()[1]
    host = conf["repo1-s3-endpoint"]
    try:
        storage = {str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        if needed:
            raise Refused(
                f"{host}, where pictures and backups lie, has no address: {error}. Nothing was stopped. When the "
                "resolvers of this host answer, run the same command again."
            ) from None
        storage = set()
    names = set(re.findall(r"^nameserver ([0-9a-fA-F.:]+)\s*$", RESOLVERS.read_text(), re.M))
    text = HELD_TEMPLATE.read_text() + elements("storage", storage) + elements("names", names)
    HELD_RULES.parent.mkdir(exist_ok=True)
    HELD_RULES.write_text(text)
    run("nft", "-f", str(HELD_RULES))
    HELD_PAGE.parent.mkdir(exist_ok=True)
    HELD_PAGE.write_text("if ($held) { return 503; }\n")
    reload_proxy()
    RESTORED.touch(mode=0o600)


def elements(name: str, addresses: set[str]) -> str:
    """Commands that put addresses into the two sets of a name."""
    found = ""
    for version in ("4", "6"):
        if known := sorted(each for each in addresses if (":" in each) == (version == "6")):
            found += f"add element inet mfg_held {name}{version} {{ {', '.join(known)} }}\n"
    return found


def reload_proxy() -> None:
    """Have nginx read its files, where it runs."""
    if subprocess.run(["systemctl", "is-active", "-q", "nginx"], check=False).returncode == 0:
        run("systemctl", "reload", "nginx")


def let_through() -> None:
    """Undo `hold`."""
    HELD_PAGE.unlink(missing_ok=True)
    HELD_RULES.unlink(missing_ok=True)
    subprocess.run(["nft", "delete", "table", "inet", "mfg_held"], capture_output=True, check=False)
    reload_proxy()
