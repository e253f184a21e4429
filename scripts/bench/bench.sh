#!/usr/bin/env bash
# bench.sh [-n ROUNDS] [-t SECONDS] [-d DIR]: hacluster beside QEMU's synchronous mirror (quorum of a local file and an
# NBD client), the standard fio jobs, interleaved in one run, without TLS on either side. DIR (default /dev/shm) holds
# all backings. Prints a Markdown table of medians: hacluster, QEMU, ratio; CPU is that of all daemons together.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=3 secs=5 dir=/dev/shm jobs=w4k_qd1,w4k_qd32,r4k_qd32,w1m_qd8
while getopts n:t:d:j: o; do case $o in n) rounds=$OPTARG;; t) secs=$OPTARG;; d) dir=$OPTARG;; j) jobs=$OPTARG;; *) exit 2;; esac; done
tmp=$(mktemp -d); disks=$(mktemp -d "$dir/hacluster-bench.XXXXXX"); serve=
cleanup() { exec 3>&- 2>/dev/null || true; [ -n "$serve" ] && wait "$serve" 2>/dev/null || true; rm -rf "$tmp" "$disks"; }
trap cleanup EXIT
QSD=${QSD:-$(scripts/bench/get-qsd-backports.sh "${QSD_DIR:-/tmp/qsd10}")}; export QSD
mkfifo "$tmp/in"
go build -o "$tmp/serve" ./cmd/internal/e2e/serve
"$tmp/serve" -bin bin -disks "$disks" <"$tmp/in" >"$tmp/out" & serve=$!
exec 3>"$tmp/in"
for _ in $(seq 600); do grep -q ^pids= "$tmp/out" && break; kill -0 $serve; sleep 0.1; done
uri=$(sed -n 's/^uri=//p' "$tmp/out"); pids=$(sed -n 's/^pids=//p' "$tmp/out")
fio --name=fill --ioengine=nbd --uri="$uri" --size=1g --rw=write --bs=1M --iodepth=8 --output-format=terse >/dev/null
for ((i = 1; i <= rounds; i++)); do
  echo "round $i of $rounds" >&2
  scripts/bench/nbd-bench.sh -r 1 -t "$secs" -j "$jobs" -p "$pids" "$uri" >"$tmp/ha.$i"
  scripts/bench/peer-qsd-mirror.sh -k mirror -c "${CACHE:-direct-native}" -d "$disks/q1" -e "$disks/q2" -- -r 1 -t "$secs" -j "$jobs" >"$tmp/qemu.$i"
done
jq -rn --slurpfile ha <(cat "$tmp"/ha.*) --slurpfile qemu <(cat "$tmp"/qemu.*) '
  def med: sort | .[((length-1)/2)|floor];
  def r: if . == null then "-" elif . < 10 then (.*100|round)/100 else round end;
  def col($s; $j; $f): [$s[].jobs[$j][$f]] | map(select(. != null)) | if length == 0 then null else med end;
  "| job | figure | hacluster | QEMU mirror | ratio |", "|---|---|---|---|---|",
  ( [["w4k_qd32","iops"],["w4k_qd1","p50_us"],["w1m_qd8","mbs"],["r4k_qd32","iops"],["w4k_qd32","p99_us"],["w4k_qd32","server_cpu_us_per_op"],["r4k_qd32","server_cpu_us_per_op"]][]
    | . as [$j,$f] | col($ha;$j;$f) as $a | col($qemu;$j;$f) as $b | select($a != null)
    | "| \($j) | \($f) | \($a|r) | \($b|r) | \(if $b then ($a/$b)|r else "-" end) |" )'
