"""The form for hosts with systemd as PID 1: a lab inside a lab machine, put through the lab's own tests.

Most users have such a host; the build machine has not. About a minute with a cached layer.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mastodon_gov.lab import preflight
from mastodon_gov.lab.image import Cache, base_key
from mastodon_gov.lab.state import DEFAULT_STATE_DIR, MachineSpec
from tests.lab.labs import MakeLab

ROOT = Path(__file__).parents[2]
FILES = ("mastodon_gov/__init__.py", "mastodon_gov/errors.py", "tests/lab/labs.py", "tests/lab/test_lab.py")
# The fixtures of the other tests need the whole product.
CONFTEST = "from tests.lab.labs import make_lab\n"
LIBRARIES = ("python3-click", "python3-rich", "python3-pytest")
# tmpfs, because the machine's own disk is an overlay, and overlays do not stand on overlays
PREPARE = f"mkdir -p {DEFAULT_STATE_DIR} /srv/repo && mount -t tmpfs -o size=7g tmpfs {DEFAULT_STATE_DIR}"


@pytest.mark.long
def test_the_systemd_form_passes_the_same_tests(make_lab: MakeLab) -> None:
    lab = make_lab("inner", [MachineSpec("host", layer_packages=(*preflight.PACKAGES, *LIBRARIES))])
    host = lab.machine("host")
    bases = Cache(DEFAULT_STATE_DIR).root / "bases"
    host.ssh(f"{PREPARE} && mkdir -p {bases}")
    modules = [str(p.relative_to(ROOT)) for p in (ROOT / "mastodon_gov/lab").glob("*.*")]
    copy = ["scp", "-q", "-F", str(lab.ssh_config), str(bases / f"{base_key()}.tar.zst"), f"host:{bases}/"]
    subprocess.run(copy, check=True)
    packed = subprocess.run(["tar", "-C", str(ROOT), "-c", *FILES, *modules], capture_output=True, check=True)
    unpack = ["ssh", "-F", str(lab.ssh_config), "host", "tar -C /srv/repo -x"]
    subprocess.run(unpack, input=packed.stdout, check=True)
    host.exec(["sh", "-c", "cat > /srv/repo/tests/lab/conftest.py"], stdin=CONFTEST)
    chosen = "trap or identity or cut or freeze or orderly or side_by_side or killed_owner"
    pytest = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-k", chosen]
    done = host.ssh(f"cd /srv/repo && {' '.join(map(repr, pytest))} tests/lab/test_lab.py", check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
