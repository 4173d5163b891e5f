"""The machine that builds: what is installed on it, and what of it goes into a release's digest."""

from __future__ import annotations

from dataclasses import dataclass

from mastodon_gov.errors import Refusal
from mastodon_gov.release.recipe import Recipe
from mastodon_gov.release.remote import Remote

DEBIAN = "13"
TOOLS = ("ca-certificates", "git", "iproute2", "python3", "util-linux", "zstd")

PACKAGES = """set -e
if [ -e /opt/mastodon/current ]; then
  echo "$(hostname): /opt/mastodon/current is there: a server, not a clean builder. Choose another machine." >&2; exit 1
fi
export DEBIAN_FRONTEND=noninteractive
missing=$(for p in {packages}; do
  dpkg-query -W -f '${{db:Status-Status}}' "$p" 2>/dev/null | grep -qx installed || echo "$p"; done)
[ -z "$missing" ] || {{ apt-get -q update && apt-get -qy --no-install-recommends install $missing; }} >&2
apt-cache show {runtime} >/dev/null 2>&1 || apt-get -q update >&2
id mastodon-build >/dev/null 2>&1 || useradd --system --home-dir {work} --no-create-home mastodon-build
mkdir -p {work} {releases}
install -d -o mastodon-build {work}/home {work}/cache
"""

# The toolchain is what building needs and all that this needs in turn, and nothing else of the machine.
FACTS = """set -e
. /etc/os-release
echo "$ID $VERSION_ID $(dpkg --print-architecture)"
apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \\
  --no-enhances {packages} | grep '^[a-z0-9]' | sort -u | xargs dpkg-query -W -f '${{Package}} ${{Version}}\\n'
echo
apt-cache show --no-all-versions {runtime} | sed -n 's/^Package: //p;s/^Version: //p' | paste -d ' ' - -
"""


@dataclass(frozen=True)
class Machine:
    """Debian's name of the processor; package -> version of all that building needs, and of what running needs."""

    arch: str
    toolchain: dict[str, str]
    runtime: dict[str, str]


def wanted(recipe: Recipe) -> list[str]:
    """Debian packages that a build of this recipe needs."""
    return sorted({*TOOLS, *recipe.packages("build")})


def prepare(remote: Remote, recipe: Recipe, work: str, releases: str) -> Machine:
    """Install what building needs and look at the machine. A server or another system is refused."""
    words = {"packages": " ".join(wanted(recipe)), "runtime": " ".join(recipe.packages("runtime")), "work": work}
    remote.run(PACKAGES.format(releases=releases, **words))
    system, _, rest = remote.run(FACTS.format(**words)).partition("\n")
    toolchain, _, runtime = (part.strip() for part in rest.partition("\n\n"))
    name, release, arch = system.split()
    if (name, release) != ("debian", DEBIAN):
        raise Refusal(f"{remote.ssh[-1]}: it runs {name} {release}; a builder must run debian {DEBIAN}.")
    return Machine(arch, pairs(toolchain), pairs(runtime))


def pairs(lines: str) -> dict[str, str]:
    """Package -> version."""
    return dict(line.split(" ", 1) for line in lines.splitlines())
