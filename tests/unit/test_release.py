"""Release bundles: the same bytes for the same inputs, and no way in for a changed one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.release import pack
from mastodon_gov.release.pins import pins

INSTALL = Path(__file__).parents[2] / "roles/mastodon/files/release_install.py"
ARCH = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
NAMESPACE = "mastodon-release"
RELEASE: dict[str, Any] = {
    "format": 1,
    "name": "4.6.5-0123abcd",
    "version": "4.6.5",
    "digest8": "0123abcd",
    "standin": True,
    "debian": "13",
    "arch": ARCH,
    "epoch": 1786018974,
    "build_date": "2026-08-06T12:22:54Z",
}
Member = tuple[tarfile.TarInfo, bytes]


class Ministry:
    """A temporary directory with keys, a source tree, a host's root directory and the installer."""

    def __init__(self, top: Path) -> None:
        self.top, self.root, self.tree = top, top / "host", top / "tree"
        self.signers = top / "allowed_signers"
        for who in ("ministry", "stranger"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", who, "-f", str(top / who)]
            subprocess.run(keygen, check=True)
        public = (top / "ministry.pub").read_text()
        self.signers.write_text(f'releases@agency.test namespaces="{NAMESPACE}" {public}')
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\n')
        self.releases = self.root / "opt/mastodon/releases"
        plant(self.tree)

    def bundle(self, name: str = "bundle", **changes: Any) -> Path:
        """A packed, signed bundle of the tree."""
        release = RELEASE | changes
        release["name"] = f"{release['version']}-{release['digest8']}"
        out = self.top / name
        out.mkdir(exist_ok=True)
        standin = "-standin" if release["standin"] else ""
        archive = out / f"mastodon-{release['version']}-debian{release['debian']}-{release['arch']}{standin}.tar.zst"
        pack.pack(self.tree, archive, release, {"bomFormat": "CycloneDX"})
        return self.sign(archive)

    def sign(self, archive: Path, who: str = "ministry", namespace: str = NAMESPACE) -> Path:
        """Sign anew, as whoever."""
        archive.with_name(archive.name + ".sig").unlink(missing_ok=True)
        argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(self.top / who), "-n", namespace, str(archive)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return archive

    def argv(self, bundle: Path, *more: str) -> list[str]:
        """The installer's command line."""
        where = ["--signers", str(self.signers), "--root", str(self.root)]
        return [sys.executable, str(INSTALL), str(bundle), *where, "--allow-standin", *more]

    def install(self, bundle: Path, *more: str) -> dict[str, Any]:
        """Install, or raise with what the program said."""
        return run(self.argv(bundle, *more))

    def program(self, *args: str) -> dict[str, Any]:
        """Any other verb of the installer."""
        return run([sys.executable, str(INSTALL), *args])


def run(argv: list[str]) -> dict[str, Any]:
    """A program's JSON; a refusal becomes an exception."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        assert "Traceback" not in done.stderr, done.stderr
        raise Refusal(done.stderr.strip())
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def plant(tree: Path) -> None:
    """A small tree with all that a release has: programs, links, an empty directory, odd names."""
    files = {
        "bin/rails": "#!/bin/sh\n",
        "Gemfile.lock": "GEM\n",
        "public/a b/é.txt": "text",
        "node_modules/toot/package.json": json.dumps({"name": "toot", "version": "1.0.0"}),
        "node_modules/toot/cli.js": "#!/usr/bin/env node\n",
        "vendor/bundle/ruby/3.3.0/specifications/rack-3.1.2.gemspec": "",
    }
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    (tree / "bin/rails").chmod(0o755)
    (tree / "tmp").mkdir()
    (tree / "node_modules/.bin").mkdir()
    (tree / "node_modules/.bin/toot").symlink_to("../toot/cli.js")


@pytest.fixture
def ministry(tmp_path: Path) -> Ministry:
    """One per test."""
    return Ministry(tmp_path)


def snapshot(top: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time and content of everything below a directory."""
    seen = {}
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        text = os.readlink(path) if path.is_symlink() else sha(path.read_bytes()) if path.is_file() else ""
        seen[str(path.relative_to(top))] = (info.st_mode, info.st_mtime_ns, text)
    return seen


def sha(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


# --- the archive ---


def test_same_inputs_give_the_same_bytes_on_other_times_modes_and_threads(
    ministry: Ministry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ministry.bundle("one").read_bytes()
    for path in ministry.tree.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    (ministry.tree / "Gemfile.lock").chmod(0o600)
    monkeypatch.setattr(pack, "ZSTD", [*pack.ZSTD, "-T1"])
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: reversed(sorted(listed(path))))
    assert ministry.bundle("two").read_bytes() == first


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda tree: (tree / "up").symlink_to("../outside"), "up: the link"),
        (lambda tree: (tree / "bin/deep").symlink_to("../bin/../../outside"), "bin/deep: the link"),
        (lambda tree: (tree / "absolute").symlink_to("/etc/passwd"), "absolute: the link"),
        (lambda tree: os.mkfifo(tree / "pipe"), "pipe: it is no file"),
        (lambda tree: (tree / "bin/rails").chmod(0o4755), "bin/rails: setuid"),
        (lambda tree: (tree / "new\nline").touch(), "do not print"),
    ],
)
def test_a_tree_that_does_not_belong_in_a_release_is_not_packed(
    ministry: Ministry, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(ministry.tree)
    with pytest.raises(pack.Unfit, match=says):
        ministry.bundle()


def test_inventory_finds_what_is_shipped(ministry: Ministry) -> None:
    (ministry.tree / "vendor/cache/webpush-9631ac63045c").mkdir(parents=True)  # a gem from git
    found = pack.inventory(ministry.tree)
    assert found["gems"] == ["rack-3.1.2", "webpush-9631ac63045c"]
    assert found["npm"] == [("toot", "1.0.0")]


# --- installing ---


def test_installed_tree_is_read_only_complete_and_checks_clean(ministry: Ministry) -> None:
    result = ministry.install(ministry.bundle())
    final = ministry.releases / RELEASE["name"]
    assert result["changed"] is True
    assert result["signer"] == "releases@agency.test"
    assert (final / "bin/rails").stat().st_mode & 0o7777 == 0o555
    assert (final / "Gemfile.lock").stat().st_mode & 0o7777 == 0o444
    assert {path.lstat().st_mode & 0o222 for path in final.rglob("*") if not path.is_symlink()} == {0}
    assert {path.lstat().st_mtime for path in final.rglob("*") if not path.is_symlink()} == {RELEASE["epoch"]}
    assert os.readlink(final / "node_modules/.bin/toot") == "../toot/cli.js"
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "MANIFEST.sha256"], cwd=final, check=True)
    checked = ministry.program("--check", str(final))
    assert checked["intact"] is True
    assert checked["manifest_sha256"] == result["manifest_sha256"]


def test_a_strict_umask_does_not_hide_releases_from_the_application(ministry: Ministry) -> None:
    bundle = ministry.bundle()
    before = os.umask(0o077)
    try:
        ministry.install(bundle)
    finally:
        os.umask(before)
    assert ministry.releases.stat().st_mode & 0o777 == 0o755
    assert (ministry.releases / RELEASE["name"] / "bin/rails").stat().st_mode & 0o777 == 0o555


def test_installing_twice_writes_nothing(ministry: Ministry) -> None:
    bundle = ministry.bundle()
    ministry.install(bundle)
    before = snapshot(ministry.root)
    assert ministry.install(bundle)["changed"] is False
    assert snapshot(ministry.root) == before


def test_verify_writes_nothing(ministry: Ministry) -> None:
    assert ministry.install(ministry.bundle(), "--verify")["files"] == 8
    assert not ministry.releases.exists()


def edit(archive: Path, change: Callable[[list[Member]], None]) -> int:
    """Rewrite an archive's members: what somebody does who can build archives."""
    plain = subprocess.run(["zstd", "-dcq", str(archive)], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        found: list[Member] = []
        for info in tar:
            content = tar.extractfile(info) if info.isreg() else None
            found.append((info, content.read() if content else b""))
    change(found)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for info, data in found:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    packed = subprocess.run(["zstd", "-cq"], input=raw.getvalue(), capture_output=True, check=True).stdout
    return archive.write_bytes(packed)


def at(found: list[Member], path: str) -> int:
    """Position of a member."""
    return next(n for n, (info, _) in enumerate(found) if info.name == f"{RELEASE['name']}/{path}")


def flip(found: list[Member]) -> None:
    n = at(found, "Gemfile.lock")
    found[n] = (found[n][0], b"gEM\n")


def drop(found: list[Member]) -> None:
    del found[at(found, "Gemfile.lock")]


def add(path: str, **kind: Any) -> Callable[[list[Member]], None]:
    """Append a member that nobody announced."""

    def change(found: list[Member]) -> None:
        info = tarfile.TarInfo(path if path.startswith(("/", "../")) else f"{RELEASE['name']}/{path}")
        info.mode = 0o555
        for key, value in kind.items():
            setattr(info, key, value)
        found.append((info, b""))

    return change


def change_mode(found: list[Member]) -> None:
    found[at(found, "bin/rails")][0].mode = 0o4555


def retarget(found: list[Member]) -> None:
    found[at(found, "node_modules/.bin/toot")][0].linkname = "../../../4.5.15-76543210/bin/rails"


def link_over_directory(found: list[Member]) -> None:
    """The directory bin becomes a link outside, so that bin/rails would be written there."""
    info = found[at(found, "bin")][0]
    info.type, info.linkname = tarfile.SYMTYPE, "../../../../etc"


def rehash(found: list[Member]) -> None:
    """A changed file with its new digest in the manifest, but the old RELEASE.json."""
    n = at(found, "RELEASE.json")
    found[n] = (found[n][0], found[n][1].replace(b'"standin": true', b'"standin": true '))


TAMPERED: dict[str, tuple[Callable[[list[Member]], None], str]] = {
    "changed byte": (flip, "Gemfile.lock.*content differs"),
    "missing": (drop, "Gemfile.lock.*missing"),
    "extra": (add("bin/extra"), "bin/extra.*does not list"),
    "twice": (add("bin/rails"), "bin/rails.*twice"),
    "setuid": (change_mode, "bin/rails.*setuid"),
    "link retargeted": (retarget, "node_modules/.bin/toot.*leaves the release"),
    "link in place of a directory": (link_over_directory, "bin.*(leaves the release|not listed)"),
    "extra link": (add("evil", type=tarfile.SYMTYPE, linkname="bin/rails"), "evil.*not listed"),
    "hard link": (add("hard", type=tarfile.LNKTYPE, linkname="/etc/shadow"), "hard.*neither a file"),
    "device": (add("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "null.*neither a file"),
    "fifo": (add("pipe", type=tarfile.FIFOTYPE), "pipe.*neither a file"),
    "traversal": (add("../../etc/cron.d/x"), "etc/cron.d/x.*outside the release"),
    "traversal inside": (add("bin/../../x"), "x.*outside the release"),
    "directory ..": (add("bin/..", type=tarfile.DIRTYPE), r"bin/\.\..*outside the release"),
    "absolute": (add("/etc/cron.d/x"), "etc/cron.d/x.*outside the release"),
    "other top directory": (add("../4.5.15-76543210/x"), "4.5.15-76543210/x.*outside the release"),
    "RELEASE.json changed": (rehash, "RELEASE.json.*content differs"),
    "no head": (lambda found: found.reverse(), "begins with"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_bundle_that_does_not_fit_its_manifest_is_refused_even_when_signed(ministry: Ministry, how: str) -> None:
    change, says = TAMPERED[how]
    bundle = ministry.bundle()
    edit(bundle, change)
    ministry.sign(bundle)
    (ministry.releases / "4.5.15-76543210").mkdir(parents=True)
    (ministry.releases / "4.5.15-76543210/Gemfile.lock").write_text("the release that runs")
    (ministry.releases.parent / "current").symlink_to("releases/4.5.15-76543210")
    before = snapshot(ministry.root)
    for mode in ((), ("--verify",)):
        with pytest.raises(Refusal, match=says):
            ministry.install(bundle, *mode)
    assert snapshot(ministry.root) == {**before, "opt/mastodon/releases": ANY}, "a refused bundle leaves nothing"


@pytest.mark.parametrize("target", ["../out", "/etc/passwd", "Gemfile.lock/../../out", "..", "bin/.."])
def test_a_link_that_leaves_is_refused_even_when_the_builder_listed_it(
    ministry: Ministry, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(pack, "unfit", lambda tree, entry: None)
    (ministry.tree / "link").symlink_to(target)
    with pytest.raises(Refusal, match=r"link.*leaves the release"):
        ministry.install(ministry.bundle())
    assert not list(ministry.releases.iterdir())


def test_an_untampered_rewrite_is_accepted(ministry: Ministry) -> None:
    """The table above proves something only if its way of rewriting is not itself refused."""
    bundle = ministry.bundle()
    edit(bundle, lambda found: None)
    assert ministry.install(ministry.sign(bundle))["changed"] is True


# --- signatures ---


def corrupt(bundle: Path) -> None:
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)


def forge(found: list[Member]) -> None:
    """What somebody does who has everything but the key: another file, and its digest in the manifest."""
    file, manifest = at(found, "Gemfile.lock"), at(found, "MANIFEST.sha256")
    old, new = sha(found[file][1]).encode(), sha(b"evil\n").encode()
    assert old in found[manifest][1]
    found[file] = (found[file][0], b"evil\n")
    found[manifest] = (found[manifest][0], found[manifest][1].replace(old, new))


def shorten(bundle: Path) -> Path:
    os.truncate(bundle, bundle.stat().st_size - 7)
    return bundle


SIGNATURES: dict[str, tuple[Callable[[Ministry, Path], object], str]] = {
    "byte changed": (lambda m, b: corrupt(b), "does not cover this file"),
    "cut off": (lambda m, b: shorten(b), "does not cover this file"),
    "cut off and signed": (
        lambda m, b: [shorten(b), m.sign(b)],
        "archive is broken|begins with",
    ),
    "garbage appended and signed": (
        lambda m, b: [b.write_bytes(b.read_bytes() + b"garbage"), m.sign(b)],
        "archive is broken",
    ),
    "manifest made to fit a changed file": (lambda m, b: edit(b, forge), "does not cover this file"),
    "the same, signed by a stranger": (
        lambda m, b: [edit(b, forge), m.sign(b, "stranger")],
        "not signed by a key",
    ),
    "of a stranger": (lambda m, b: m.sign(b, "stranger"), "not signed by a key"),
    "for another purpose": (lambda m, b: m.sign(b, namespace="git"), "does not cover this file"),
    "absent": (lambda m, b: b.with_name(b.name + ".sig").unlink(), "signature .* is missing"),
    "no list": (lambda m, b: m.signers.unlink(), "allowed signers .* is missing"),
    "garbage": (lambda m, b: b.with_name(b.name + ".sig").write_text("x"), "not signed by a key"),
}


@pytest.mark.parametrize("how", SIGNATURES)
def test_signature_is_judged_before_anything_is_unpacked(ministry: Ministry, how: str) -> None:
    change, says = SIGNATURES[how]
    bundle = ministry.bundle()
    change(ministry, bundle)
    with pytest.raises(Refusal, match=says):
        ministry.install(bundle)
    assert not list(ministry.releases.glob("*"))
    assert not list(ministry.releases.glob(".*"))


# --- what the host is ---


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arch": "s390x"}, "built for debian 13 s390x"),
        ({"debian": "12"}, "built for debian 12"),
        ({"format": 2}, "bundle format 2"),
    ],
)
def test_a_bundle_for_another_system_is_refused(ministry: Ministry, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        ministry.install(ministry.bundle(**changes))


def test_a_standin_needs_a_lab_and_real_mastodon_does_not(ministry: Ministry) -> None:
    standin = [arg for arg in ministry.argv(ministry.bundle()) if arg != "--allow-standin"]
    with pytest.raises(Refusal, match="stand-in, not Mastodon"):
        run(standin)
    real = [arg for arg in ministry.argv(ministry.bundle(standin=False)) if arg != "--allow-standin"]
    assert run(real)["standin"] is False


def test_a_renamed_bundle_is_refused(ministry: Ministry) -> None:
    bundle = ministry.bundle()
    other = bundle.with_name(bundle.name.replace("4.6.5", "4.6.6"))
    bundle.rename(other)
    with pytest.raises(Refusal, match="keeps the name it was built under"):
        ministry.install(ministry.sign(other))


def test_too_little_space_is_said_before_unpacking(ministry: Ministry, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = pack.as_json

    def announce(value: dict[str, Any]) -> bytes:
        return measure(value | {"bytes": 1 << 60} if "links" in value else value)

    monkeypatch.setattr(pack, "as_json", announce)
    with pytest.raises(Refusal, match=r"needs \d+ MiB .* free are"):
        ministry.install(ministry.bundle())
    assert not list(ministry.releases.iterdir())


# --- bad days ---

# Stands in for another program that takes the space after it was checked.
UNCHECKED = "import sys, release_install as r; r.check_space = lambda *a: None; sys.exit(r.main())"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small disk")
@pytest.mark.parametrize("disk", ["size=1m", "nr_inodes=40"])
def test_a_disk_that_fills_up_while_unpacking_is_said_and_left_empty(ministry: Ministry, disk: str) -> None:
    (ministry.tree / "zzz").write_bytes(random.Random(0).randbytes(3 << 20))  # noqa: S311
    for n in range(50):
        (ministry.tree / f"empty/{n}").mkdir(parents=True)
    ministry.releases.mkdir(parents=True)
    mount = 'mount -t tmpfs -o "$0" tmpfs "$1"; cd "$2"; shift 2; "$@"; code=$?; ls -A "$RELEASES"; exit $code'
    program = [sys.executable, "-B", "-c", UNCHECKED, *ministry.argv(ministry.bundle())[2:]]
    argv = ["unshare", "--mount", "sh", "-c", mount, disk, str(ministry.releases), str(INSTALL.parent), *program]
    environment = os.environ | {"RELEASES": str(ministry.releases)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert done.stdout == "", "nothing is left"
    assert "filled up while unpacking" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("harm", ["changed", "extra", "missing", "writable", "link"])
def test_a_damaged_installation_is_seen_and_not_overwritten(ministry: Ministry, harm: str) -> None:
    bundle = ministry.bundle()
    ministry.install(bundle)
    final = ministry.releases / RELEASE["name"]
    for path in [final, *final.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    assert ministry.program("--check", str(final))["intact"] is False
    damage(final, harm)
    for path in [final, *final.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o555)
    found = ministry.program("--check", str(final))
    assert found["intact"] is False
    assert len(found["problems"]) == 1
    before = snapshot(ministry.root)
    with pytest.raises(Refusal, match="differs from the bundle"):
        ministry.install(bundle)
    assert snapshot(ministry.root) == before


def test_other_content_under_an_installed_name_is_refused(ministry: Ministry) -> None:
    ministry.install(ministry.bundle())
    (ministry.tree / "Gemfile.lock").write_text("another\n")
    before = snapshot(ministry.root)
    with pytest.raises(Refusal, match="its manifest is another one"):
        ministry.install(ministry.bundle())
    assert snapshot(ministry.root) == before


def damage(final: Path, harm: str) -> None:
    """One kind of damage."""
    target, link = final / "Gemfile.lock", final / "node_modules/.bin/toot"
    if harm == "changed":
        target.chmod(0o644)
        target.write_text("GeM\n")
        target.chmod(0o444)
    elif harm == "extra":
        (final / "bin/extra").touch(0o444)
    elif harm == "missing":
        target.unlink()
    elif harm == "writable":
        target.chmod(0o664)
    else:
        link.unlink()
        link.symlink_to("/bin/sh")


def test_killed_at_random_points_leaves_the_rest_untouched_and_the_next_run_converges(ministry: Ministry) -> None:
    ministry.install(ministry.bundle("old", version="4.5.15", digest8="76543210"))
    before = snapshot(ministry.releases / "4.5.15-76543210")
    for n in range(400):
        (ministry.tree / f"public/{n}").write_text(str(n) * 2000)
    bundle = ministry.bundle()
    final = ministry.releases / RELEASE["name"]
    began = time.monotonic()
    ministry.install(bundle)
    whole = time.monotonic() - began
    halfway = 0
    for attempt in range(12):
        subprocess.run(["rm", "-rf", str(final)], check=True)
        victim = subprocess.Popen(ministry.argv(bundle), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            victim.wait(whole * (0.3 + 0.7 * random.random()))  # noqa: S311  not for secrets
        except subprocess.TimeoutExpired:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        halfway += bool(list(ministry.releases.glob(".incoming-*")))
        if final.exists():
            assert ministry.program("--check", str(final))["intact"], f"attempt {attempt}: visible but not whole"
        assert ministry.install(bundle)["name"] == RELEASE["name"]
        assert ministry.program("--check", str(final))["intact"] is True
        assert not list(ministry.releases.glob(".incoming-*"))
    assert halfway, "no run was killed while unpacking: the test proved nothing"
    assert snapshot(ministry.releases / "4.5.15-76543210") == before


def test_prune_keeps_what_slots_use_and_never_fewer_than_two(ministry: Ministry) -> None:
    names = []
    for n in range(4):
        result = ministry.install(ministry.bundle(f"b{n}", digest8=f"0000000{n}"))
        names.append(result["name"])
    (ministry.releases / ".incoming-4.6.5-0000000f").mkdir()
    home = ministry.releases.parent
    (home / "slot").mkdir()
    (home / "slot/a").symlink_to(f"../releases/{names[0]}")
    (home / "current").symlink_to(f"releases/{names[0]}")
    result = ministry.program("--prune", "--root", str(ministry.root))
    assert result["kept"] == [names[0], names[3]], "the one in use, and the newest to make two"
    assert sorted(path.name for path in ministry.releases.iterdir()) == [names[0], names[3]]
    listed = ministry.program("--list", "--root", str(ministry.root))
    assert listed["pointers"] == {"slot/a": names[0], "current": names[0]}
    assert ministry.program("--prune", "--root", str(ministry.root))["changed"] is False
    ministry.install(ministry.bundle("later", digest8="0000000e"))
    (home / "previous").symlink_to(f"releases/{names[3]}")
    result = ministry.program("--prune", "--root", str(ministry.root))
    assert result["kept"] == [names[0], names[3]], "the one that nginx still serves and a rollback goes to"


# --- pins ---


def test_an_unknown_version_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refusal, match=r"4\.6\.4 is not known.*4\.6\.5, 4\.5\.15"):
        pins().version("4.6.4")
