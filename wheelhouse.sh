#!/bin/sh
# wheelhouse.sh PIP DIRECTORY: the locked Python dependencies as wheels, for control nodes without internet. For the
# Pythons of Debian 12 and 13 and both processors; every file has a hash in requirements*.txt. A wheel that the package
# index lacks is named, and the rest is fetched all the same.
set -u
pip=$1 directory=$2
mkdir -p "$directory"
failed=0
for python in 3.11 3.13; do
  for processor in x86_64 aarch64; do
    abi=cp$(echo "$python" | tr -d .)
    set -- --python-version "$python" --implementation cp --abi "$abi" --abi abi3 --abi none --platform any
    for libc in manylinux1 manylinux2010 manylinux2014 manylinux_2_17 manylinux_2_24 manylinux_2_27 manylinux_2_28 \
      manylinux_2_31 manylinux_2_34; do
      set -- "$@" --platform "${libc}_$processor"
    done
    if said=$("$pip" download -q --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
      -r requirements.txt -r requirements-schemas.txt -d "$directory" "$@" 2>&1); then
      echo "wheels for Python $python on $processor: complete"
    else
      failed=1
      echo "wheels for Python $python on $processor: $(echo "$said" | grep ERROR: | tail -1)" >&2
    fi
  done
done
cp requirements*.txt "$directory/"
echo "$(find "$directory" -name '*.whl' | wc -l) wheels, $(du -sm "$directory" | cut -f1) MB in $directory"
exit $failed
