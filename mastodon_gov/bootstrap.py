"""The verb `bootstrap`: the first contact with a host, once, as root or as a cloud image's sudo user.

From then on the inventory knows only the deploy account, and the first deploy closes every other way in.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.load import load

# Debian's sshd reads ~/.ssh/authorized_keys; the role `ssh` moves it to /etc/ssh/keys, which only root can write.
SCRIPT = """\
set -eu
. /etc/os-release
if [ "$ID" != debian ] || [ "$VERSION_ID" != 13 ]; then
  echo "this host runs $PRETTY_NAME; only Debian 13 is supported. Install Debian 13 and run bootstrap again." >&2
  exit 1
fi
if ! command -v sudo >/dev/null || ! command -v python3 >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq -y --no-install-recommends install sudo python3 >/dev/null
fi
getent group mfg-deploy >/dev/null || groupadd --system mfg-deploy
id deploy >/dev/null 2>&1 || useradd --create-home --user-group --home-dir /home/deploy --shell /bin/bash deploy
usermod -aG mfg-deploy deploy
install -d -m 755 /etc/ssh/keys
cat > /etc/ssh/keys/deploy.new
chmod 644 /etc/ssh/keys/deploy.new
mv /etc/ssh/keys/deploy.new /etc/ssh/keys/deploy
install -d -m 700 -o deploy -g deploy /home/deploy/.ssh
install -m 600 -o deploy -g deploy /etc/ssh/keys/deploy /home/deploy/.ssh/authorized_keys
umask 227
echo 'deploy ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/10-mfg.new
visudo -cqf /etc/sudoers.d/10-mfg.new
mv /etc/sudoers.d/10-mfg.new /etc/sudoers.d/10-mfg
echo ready
"""


def _known(directory: Path, name: str, addresses: list[str], fingerprint: str | None) -> Path:
    """The instance's known_hosts with this host in it, by all its addresses; the first is asked. A key is taken only
    when its fingerprint was given.

    Raises Refusal when the key is unknown, or is not the one that was named.
    """
    known, address = directory / "known_hosts", addresses[0]
    if known.exists() and _run(["ssh-keygen", "-F", address, "-f", str(known)]).returncode == 0:
        return known
    scanned = _run(["ssh-keyscan", "-t", "ed25519", "-T", "10", address]).stdout
    if not scanned.strip():
        raise Refusal(
            f"{name}: no SSH server answers at {address}. Check addresses.yaml and the network, then try again."
        )
    seen = _run(["ssh-keygen", "-l", "-f", "-"], scanned).stdout.split()[1]
    if seen != fingerprint:
        raise Refusal(
            f"{name}: the host shows the key {seen}, and {known} does not know it. Compare it with the console of the "
            f"host (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then run: bootstrap {name} --fingerprint {seen}"
        )
    with known.open("a") as file:
        file.write(scanned.replace(f"{address} ", f"{','.join(dict.fromkeys([name, *addresses]))} "))
    return known


def _run(words: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)


def prepare(  # noqa: PLR0913, PLR0917
    instance: Instance, directory: Path, name: str, user: str, key: Path | None, fingerprint: str | None
) -> None:
    """Make the deploy account on a host; running it again changes nothing that is right.

    Raises Refusal for a wrong operating system, an unknown host key or a refused sign-in.
    """
    addresses = instance.reached_at(name)
    known = _known(directory, name, addresses, fingerprint)
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", f"UserKnownHostsFile={known}"]
    words += ["-o", "StrictHostKeyChecking=yes", *(["-i", str(key), "-o", "IdentitiesOnly=yes"] if key else [])]
    # The script travels as the command, the keys on stdin; neither is a secret.
    become = [] if user == "root" else ["sudo", "-n"]
    proxy = instance.network.http_proxy
    become += ["env", f"http_proxy={proxy}", f"https_proxy={proxy}"] if proxy else []
    words += [f"{user}@{addresses[0]}", *become, "sh", "-c", f"'{_quoted(SCRIPT)}'"]
    done = _run(words, "\n".join(instance.access.deploy_keys) + "\n")
    if done.returncode or not done.stdout.endswith("ready\n"):
        raise Refusal(f"{name}: bootstrap as {user} did not work: {done.stderr.strip() or done.stdout.strip()}")


def _quoted(script: str) -> str:
    return script.replace("'", "'\"'\"'")


@click.command()
@click.argument("host")
@click.option("--user", default="root", show_default=True, help="Account of the first contact; may use sudo.")
@click.option(
    "--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Private key for that account."
)
@click.option("--fingerprint", help="SHA256:… of the host's ed25519 key, as its console shows it.")
@click.pass_obj
def bootstrap(directory: Path, host: str, user: str, key: Path | None, fingerprint: str | None) -> None:
    """Make the deploy account on HOST, the first time. Changes the host: one account, one sudo rule, Python."""
    prepare(load(directory), directory, host, user, key, fingerprint)
    click.echo(f"{host} is ready for its first deploy.")
