#!/bin/bash
# Boots one lab machine. Runs in a private mount namespace, so that no mount is ever left on the host.
# boot.sh ID HOSTNAME LOWERS DIR volatile|durable REGISTER BRIDGE
set -eu
id=$1 hostname=$2 lowers=$3 dir=$4 durability=$5 register=$6 bridge=$7

# On a hybrid host, hide cgroup v1: the machine's systemd then sees an ordinary unified host.
if ! [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  umount -R /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi

options="lowerdir=$lowers,upperdir=$dir/upper,workdir=$dir/work"
if [ "$durability" = volatile ]; then
  rm -rf "$dir/work/work/incompat" # left by a crash; the kernel refuses the mount while it is there
  options="$options,volatile"
fi
mount -t overlay "$id" -o "$options" "$dir/root"

# Without the two capabilities and the system calls, IPAddressDeny= and its kin silently do nothing inside.
exec systemd-nspawn -D "$dir/root" --boot --keep-unit "--register=$register" -M "$id" "--hostname=$hostname" \
  "--network-bridge=$bridge" --resolv-conf=off --timezone=off --link-journal=no --console=read-only \
  --capability=CAP_BPF,CAP_PERFMON "--system-call-filter=bpf perf_event_open @keyring"
