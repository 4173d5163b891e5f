#!/bin/sh
# setup.sh "DEBIAN PACKAGES" VENV [WHEELHOUSE]: what `make` needs on this machine. Names what is missing, installs it as
# root. With a wheelhouse (`make wheelhouse`) Python packages come from there alone, and no network is needed.
set -eu
packages=$1 venv=$2 wheelhouse=${3:-}
if [ -n "$wheelhouse" ] && [ -z "$(find "$wheelhouse" -maxdepth 1 -name '*.whl' 2>/dev/null | head -n 1)" ]; then
  echo "WHEELHOUSE=$wheelhouse: no wheels lie there. Make them with \`make wheelhouse\` where there is a network." >&2
  exit 1
fi
missing=""
for package in $packages; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ] && [ "$(id -u)" = 0 ]; then
  echo "This machine lacks these Debian packages:$missing. Installing them."
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086  # one word for each package
  { apt-get -qq update && apt-get -qq -y --no-install-recommends install $missing >/dev/null; } || {
    echo "apt-get could not install them. Without internet: let /etc/apt/sources.list.d name your mirror of Debian, or" \
      "install them by hand. Then run make again." >&2
    exit 1
  }
elif [ -n "$missing" ]; then
  echo "This machine lacks these Debian packages:$missing. As root: apt-get install$missing." >&2
  echo "Lab machines need root; without it the unit tests still run." >&2
fi
[ -x "$venv/bin/python" ] || python3 -m venv "$venv" || {
  echo "Python's venv module is missing. As root: apt-get install python3-venv. Then run make again." >&2
  exit 1
}
pip() { "$venv/bin/pip" "$@"; }
if [ -n "$wheelhouse" ]; then
  # No other source, whatever this machine's settings of pip say.
  export PIP_CONFIG_FILE=/dev/null
  pip() { "$venv/bin/pip" --isolated "$@" --no-index --find-links "$wheelhouse"; }
fi
pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-schemas.txt
pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
touch "$venv/ready"
