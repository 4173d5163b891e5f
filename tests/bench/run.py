"""`make bench`: what a deploy with nothing to do costs, against the same resources through stock operations.

Both run here, one after the other, three times; ratios of one run count, seconds of a busy machine do not.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from mastodon_gov.lab.demo import REPOSITORY
from mastodon_gov.runner import run_pyinfra

ROUNDS = 3
DEMO = REPOSITORY / "inventories/demo"


def measure(deploy: Path, dry: bool = False) -> tuple[float, int, int]:
    """Median seconds, remote commands and changed operations of this deploy on the demo."""
    runs = [run_pyinfra(DEMO, dry=dry, on_progress=lambda _: None, deploy=deploy) for _ in range(ROUNDS)]
    failed = [run for run in runs if run.failed or not run.hosts]
    if failed:
        sys.exit(f"{deploy.name} did not reach the demo; run `make demo` first.\n{failed[0].log[-2000:]}")
    return statistics.median(run.seconds for run in runs), runs[-1].commands, len(runs[-1].changes)


def main() -> None:
    """Print a table."""
    ours = measure(REPOSITORY / "deploy.py")
    stock = measure(Path(__file__).with_name("stock.py"))
    print(f"{'deploy with nothing to do':<34} {'seconds':>8} {'commands':>9} {'changed':>8}")
    for name, (seconds, commands, changed) in (("ours", ours), ("same resources, stock operations", stock)):
        print(f"{name:<34} {seconds:8.1f} {commands:9} {changed:8}")
    print(f"ratio: {stock[0] / ours[0]:.1f} times the seconds, {stock[1] / ours[1]:.1f} times the remote commands")


if __name__ == "__main__":
    main()
