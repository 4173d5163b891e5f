#!/bin/sh
# setup.sh "DEBIAN PACKAGES" VENV: what `make` needs on this machine. Names what is missing, installs it as root.
set -eu
packages=$1 venv=$2
missing=""
for package in $packages; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ] && [ "$(id -u)" = 0 ]; then
  echo "This machine lacks these Debian packages:$missing. Installing them."
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  # shellcheck disable=SC2086  # one word for each package
  apt-get -qq -y --no-install-recommends install $missing >/dev/null
elif [ -n "$missing" ]; then
  echo "This machine lacks these Debian packages:$missing. As root: apt-get install$missing." >&2
  echo "Lab machines need root; without it the unit tests still run." >&2
fi
[ -x "$venv/bin/python" ] || python3 -m venv "$venv" || {
  echo "Python's venv module is missing. As root: apt-get install python3-venv. Then run make again." >&2
  exit 1
}
"$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r requirements.txt
"$venv/bin/pip" install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
touch "$venv/ready"
