"""What an audit costs, against as many plain testinfra checks, each with a connection of its own, in the same run."""

from __future__ import annotations

import time

import testinfra

from mastodon_gov.audit.suite import Asked, run_suite
from mastodon_gov.instance.load import load
from mastodon_gov.lab.demo import REPOSITORY
from mastodon_gov.remote import Host

DEMO = REPOSITORY / "inventories/demo"
SAMPLE = 20  # plain checks that are measured; each costs the same


def plain(checks: int) -> float:
    """Seconds of that many checks that each sign in and ask one question."""
    address = Host("social", DEMO, load(DEMO)).address
    options = f"-o UserKnownHostsFile={DEMO / 'known_hosts'} -o ControlMaster=no -o LogLevel=ERROR"
    host = testinfra.get_host(
        f"ssh://deploy@{address}", ssh_identity_file=str(DEMO / "deploy_key"), ssh_extra_args=options
    )
    began = time.monotonic()
    for _ in range(SAMPLE):
        assert "permitrootlogin no" in host.check_output("sudo -n sshd -T")  # or we measure nothing
    return (time.monotonic() - began) / SAMPLE * checks


def main() -> None:
    """Print a table."""
    began = time.monotonic()
    checks, session = run_suite(Asked(DEMO, key=DEMO / "deploy_key"), lambda _: None)
    ours = time.monotonic() - began
    theirs = plain(len(checks))
    print(f"{'audit':<34} {'seconds':>8} {'commands':>9} {'checks':>8}")
    print(f"{'ours':<34} {ours:8.1f} {session.commands:9} {len(checks):8}")
    print(f"{'plain testinfra':<34} {theirs:8.1f} {len(checks):9} {len(checks):8}")
    print(
        f"ratio: {theirs / ours:.1f} times the seconds, {len(checks) / session.commands:.1f} times the remote commands"
    )


if __name__ == "__main__":
    main()
