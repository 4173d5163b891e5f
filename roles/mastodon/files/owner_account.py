#!/usr/bin/python3
"""Make the owner's account, or give it a new first password, and keep that password in a file only root can read.

    owner_account.py create|reset|restore RELEASE USERNAME ADDRESS

`restore` is for an owner who is locked out: role, address and access as they were at first, no second factor. The role
is whichever has the administrator permission: whoever held the account may have renamed it, and made another "Owner".

The password never passes through a log, an argument or the control node's deploy; `mastodon-gov owner` shows it once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

PLACE = "/var/lib/mastodon-gov/owner-first-password"
PSQL = "runuser -u mastodon-owner -- /usr/lib/postgresql/17/bin/psql -XqAt -v ON_ERROR_STOP=1".split()
PSQL += ["-U", "mastodon_owner", "-d", "mastodon_production", "-f", "-"]
# One statement: a role is made only where no administrator's is left.
ROLE = """WITH found AS (SELECT id FROM user_roles WHERE permissions & 1 = 1 ORDER BY position DESC, id LIMIT 1),
  made AS (INSERT INTO user_roles (name, permissions, position, highlighted, created_at, updated_at)
    SELECT 'Owner', 1, 1000, true, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
     WHERE NOT EXISTS (SELECT FROM found) RETURNING id)
UPDATE users u SET role_id = (SELECT id FROM found UNION ALL SELECT id FROM made) FROM accounts a
 WHERE a.id = u.account_id AND a.domain IS NULL AND lower(a.username) = lower(:'username');"""


def main(words: list[str]) -> int:
    what, release, username, address = words
    # A block of our own mail domain, made in the pages, would refuse every change here. The database's register holds.
    run = ["/usr/local/lib/mastodon-gov/mastodon-run", "mastodon-owner", release]
    run += ["env", "EMAIL_DOMAIN_LISTS_APPLY_AFTER_CONFIRMATION=false", "bundle", "exec", "bin/tootctl"]
    create = ["create", username, "--email", address, "--confirmed", "--approve"]
    reset = ["modify", username, "--reset-password"]
    restore = [*reset, "--enable", "--approve", "--disable-2fa", "--email", address, "--confirm"]
    chosen = {"create": create, "reset": reset, "restore": restore}[what]
    done = subprocess.run([*run, "accounts", *chosen], capture_output=True, text=True, check=False)
    password = re.search(r"New password: (\S+)", done.stdout)
    if done.returncode or not password:
        told = (done.stderr.strip() or "it printed no password").splitlines()[-5:]
        print(f"tootctl accounts {what} {username} ended with {done.returncode}: " + "\n".join(told), file=sys.stderr)
        return 1
    given = subprocess.run(
        [*PSQL, "-v", f"username={username}"], input=ROLE, capture_output=True, text=True, check=False
    )
    if given.returncode:
        print(f"The database gave {username} no administrator's role: {given.stderr.strip()}", file=sys.stderr)
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
