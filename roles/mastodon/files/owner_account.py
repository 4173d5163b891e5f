#!/usr/bin/python3
"""Make the owner's account, or give it a new first password, and keep that password in a file only root can read.

    owner_account.py create|reset|restore RELEASE USERNAME ADDRESS

`restore` is for an owner who is locked out: role, address and access as they were at first, no second factor.

The password never passes through a log, an argument or the control node's deploy; `mastodon-gov owner` shows it once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

PLACE = "/var/lib/mastodon-gov/owner-first-password"


def main(words: list[str]) -> int:
    what, release, username, address = words
    run = ["/usr/local/lib/mastodon-gov/mastodon-run", "mastodon-owner", release, "bundle", "exec", "bin/tootctl"]
    create = ["create", username, "--email", address, "--confirmed", "--approve", "--role", "Owner"]
    reset = ["modify", username, "--reset-password"]
    restore = [*reset, "--enable", "--approve", "--disable-2fa", "--role", "Owner", "--email", address, "--confirm"]
    chosen = {"create": create, "reset": reset, "restore": restore}[what]
    done = subprocess.run([*run, "accounts", *chosen], capture_output=True, text=True, check=False)
    password = re.search(r"New password: (\S+)", done.stdout)
    if done.returncode or not password:
        told = (done.stderr.strip() or "it printed no password").splitlines()[-5:]
        print(f"tootctl accounts {what} {username} ended with {done.returncode}: " + "\n".join(told), file=sys.stderr)
        return 1
    descriptor = os.open(PLACE + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(password[1] + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(PLACE + ".new", PLACE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
