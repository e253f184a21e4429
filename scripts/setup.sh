#!/usr/bin/env bash
# Installs what tests, demo and benchmarks need beside Go, when it is missing: fio, jq, nbdkit, nbdinfo and nbdcopy
# (libnbd), qemu-img and qemu-io, mke2fs, stress-ng, losetup (mount), ping (iputils-ping), the programs of
# PostgreSQL (a database of the distribution's own is neither made nor started), and for the laboratory ip and tc (iproute2) nft (nftables), for fencing Debian's
# fence agents and an sshd (the machine's own is left as it is).
# Nothing is done when all are there.
set -euo pipefail
need=()
want() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || need+=("$2"); }
want fio fio; want jq jq; want nbdkit nbdkit; want nbdinfo libnbd-bin; want qemu-img qemu-utils; want mke2fs e2fsprogs; want stress-ng stress-ng
want ip iproute2; want tc iproute2; want nft nftables; want losetup mount; want ping iputils-ping
want fence_dummy fence-agents; want sshd openssh-server; want ssh openssh-client # fencing
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || need+=(postgresql)
[ ${#need[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "missing: ${need[*]}. Install them: sudo apt-get install ${need[*]}" >&2
  exit 1
fi
echo "installing ${need[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >/dev/null
if [[ " ${need[*]} " == *" postgresql "* ]]; then
  apt-get -qq install -y --no-install-recommends postgresql-common >/dev/null
  sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
fi
apt-get -qq install -y --no-install-recommends "${need[@]}" >/dev/null
