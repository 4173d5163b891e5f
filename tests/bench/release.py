"""What verifying and installing a bundle costs, against plain tar and sha256sum on the same bundle in the same run."""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from mastodon_gov.release import bundle, pack

FILES, BYTES = 50_000, 600_000_000  # what real Mastodon 4.6.5 has: 46,000 files, 667 MB
LARGE = 120_000_000  # of these, Node's binary
WORDS = [random.Random(n).randbytes(6).hex().encode() for n in range(4000)]  # noqa: S311  only to look like text


def tree(top: Path) -> None:
    """Files like an application's: many small, one large, some directories deep."""
    chance = random.Random(0)  # noqa: S311
    mean = (BYTES - LARGE) / FILES
    text = b" ".join(chance.choices(WORDS, k=200_000))
    for n in range(FILES):
        directory = top / f"vendor/{n % 40}/{n % 1000}"
        directory.mkdir(parents=True, exist_ok=True)
        begin = chance.randrange(len(text) // 2)
        (directory / f"{n}.rb").write_bytes(text[begin : begin + int(chance.expovariate(1 / mean))])
    (top / "node").write_bytes(chance.randbytes(LARGE // 3) + bytes(LARGE - LARGE // 3))


def made(directory: Path) -> Path:
    """A signed bundle of such a tree."""
    tree(directory / "tree")
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    about = bundle.Release(
        name="4.6.5-0123abcd",
        version="4.6.5",
        digest8="0123abcd",
        standin=False,
        commit=None,
        source_digest=None,
        debian="13",
        arch=arch,
        epoch=0,
        build_date="",
        node=None,
        toolchain={},
        runtime_packages=[],
    )
    file = directory / about.file
    pack.pack(directory / "tree", file, about.model_dump(exclude={"files", "bytes"}), {})
    bundle.sign(file, bundle.lab_key(directory)[0])
    shutil.rmtree(directory / "tree")
    (directory / "host/etc").mkdir(parents=True)
    (directory / "host/etc/os-release").write_text("ID=debian\nVERSION_ID=13\n")
    return file


def timed(argv: list[str], directory: Path) -> float:
    """Seconds of a command that must succeed."""
    began = time.monotonic()
    subprocess.run(argv, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def measure(file: Path) -> tuple[float, float]:
    """Seconds of our verification and installation, and of `tar x`, `sha256sum -c`, `sync`."""
    top = file.parent
    ours = timed(
        [
            "python3",
            "-B",
            str(bundle.INSTALLER),
            str(file),
            "--signers",
            "allowed_signers",
            "--root",
            str(top / "host"),
        ],
        top,
    )
    shutil.rmtree(top / "host/opt")
    plain = (
        "mkdir plain && tar --zstd -xf $0 -C plain && cd plain/4.6.5-0123abcd "
        "&& sha256sum --quiet -c MANIFEST.sha256 && sync -f ."
    )
    reference = timed(["sh", "-c", plain, str(file)], top)
    shutil.rmtree(top / "plain")
    return ours, reference


def main() -> None:
    """Print a line; three rounds, the medians."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as where:
        file = made(Path(where))
        rounds = [measure(file) for _ in range(3)]
    ours, reference = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"verify and install a bundle of {FILES} files: {ours:.1f} s; tar x and sha256sum -c: {reference:.1f} s")
    print(f"ratio: {ours / reference:.1f}; all rounds: {json.dumps([[round(s, 1) for s in pair] for pair in rounds])}")


if __name__ == "__main__":
    main()
