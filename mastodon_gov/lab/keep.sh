#!/bin/bash
# Keeps one lab machine running on a host without systemd: boots it in a control group of its own and boots it
# again when it asked for a reboot (nspawn then exits with 133).
# keep.sh GROUP COMMAND...
set -u
group=$1
shift
echo $$ >"$group/keeper/cgroup.procs" || exit 1

boot=0
while :; do
  boot=$((boot + 1))
  # A group per boot: a parent with processes of its own could not hand controllers to its children.
  mkdir "$group/boot-$boot" || exit 1
  (echo "$BASHPID" >"$group/boot-$boot/cgroup.procs" && exec unshare -m --propagation private "$@")
  status=$?
  [ "$status" = 133 ] || exit "$status"
  find "$group/boot-$boot" -depth -type d -exec rmdir {} \; 2>/dev/null
done
