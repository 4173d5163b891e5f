"""The first contact with a machine of a cloud: only the image's user can sign in, and nobody has seen its key yet."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lab.deployed import Deployed
from tests.lab.edits import keypair, may_sign_in
from tests.lab.fresh import Fresh, specs
from tests.lab.labs import MakeLab

DRIFT = 3
RULE = "/etc/sudoers.d/90-cloud-init-users"
# As cloud-init makes it on Debian's image.
USER = f"""useradd --create-home --groups adm,sudo --shell /bin/bash debian && passwd -q -l debian
cd ~debian && install -d -m 700 -o debian -g debian .ssh
install -m 600 -o debian -g debian /dev/stdin .ssh/authorized_keys
printf '# User rules for debian\\ndebian ALL=(ALL) NOPASSWD:ALL\\n' > {RULE} && chmod 440 {RULE}
rm /root/.ssh/authorized_keys"""


def _audited(deployed: Deployed) -> dict[str, str]:
    """State of every control that speaks of people and of sudo."""
    done = deployed.cli("audit", "--json", "--group", "USR", "--group", "SUDO", check=False)
    return {each["id"]: each["state"] for each in json.loads(done.stdout)["controls"]}


def test_a_cloud_image_s_user_makes_the_first_contact_and_is_closed(make_lab: MakeLab, tmp_path: Path) -> None:
    """The key is compared, the plan reaches the host, and nobody but the declared has rights after the deploy."""
    fresh = Fresh(make_lab("cloud", specs()), tmp_path / "instance")
    deployed = fresh.blank()
    key, public = keypair(tmp_path, "debian")
    deployed.root(USER, stdin=public + "\n")
    (deployed.directory / "known_hosts").unlink()
    words = ("bootstrap", "social", "--user", "debian", "--key", str(key))
    refused = deployed.cli(*words, check=False)
    shown = deployed.root("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert refused.returncode == 1
    assert f"--fingerprint {shown}" in refused.stdout + refused.stderr
    wrong = deployed.cli(*words, "--fingerprint", "SHA256:" + "A" * 43, check=False)
    assert wrong.returncode == 1
    assert deployed.root("getent passwd deploy; true") == ""
    deployed.cli(*words, "--fingerprint", shown)
    assert deployed.cli("plan", check=False).returncode == DRIFT
    deployed.deploy()
    assert deployed.deploy()["changes"] == []
    assert not may_sign_in(deployed, key, "debian")
    assert deployed.root(f"ls -d {RULE} /home/debian 2>/dev/null; true").split() == ["/home/debian"]
    assert "not allowed" in deployed.root("sudo -l -U debian; true")
    told = _audited(deployed)
    assert {name for name, state in told.items() if state != "passed"} == set()
    assert len(told) > 10
