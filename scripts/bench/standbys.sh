#!/usr/bin/env bash
# standbys.sh [-n ROUNDS] [-t SECONDS] [-d DIR] [-m MODE] [-q]
#
# What a volume does with 0, 1, 2 and 3 standbys: the standard fio jobs against each in turn, in one run, all nodes on this
# machine. 0 is the NBD server over one file. DIR (default /dev/shm) holds all backings. Prints a Markdown table of medians and
# the plot of one line of it, for docs/figures.md.
#
# -m  sync, semisync or async (default sync)
# -q  neither waits for a quiet machine nor repeats what was disturbed: for a first look only
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=3 secs=5 dir=/dev/shm mode=sync quick=
while getopts n:t:d:m:q o; do case $o in
  n) rounds=$OPTARG;; t) secs=$OPTARG;; d) dir=$OPTARG;; m) mode=$OPTARG;; q) quick=-q;; *) sed -n '2,11p' "$0" >&2; exit 2;; esac; done
tmp=$(mktemp -d); disks=$(mktemp -d "$dir/hacluster-standbys.XXXXXX"); serves=()
cleanup() { exec 3>&- 4>&- 5>&- 6>&- 2>/dev/null || true; for s in "${serves[@]}"; do wait "$s" 2>/dev/null || true; done; rm -rf "$tmp" "$disks"; }
trap cleanup EXIT
go build -o "$tmp/serve" ./cmd/internal/e2e/serve

uri=() pids=()
for n in 0 1 2 3; do
  mkfifo "$tmp/in.$n"; mkdir "$disks/$n"
  how=(-copies $((n + 1)) -mode "$mode"); [ $n = 0 ] && how=(-alone)
  "$tmp/serve" -bin bin -disks "$disks/$n" "${how[@]}" <"$tmp/in.$n" >"$tmp/out.$n" & serves+=($!)
  case $n in 0) exec 3>"$tmp/in.0";; 1) exec 4>"$tmp/in.1";; 2) exec 5>"$tmp/in.2";; 3) exec 6>"$tmp/in.3";; esac
  for _ in $(seq 900); do grep -q ^pids= "$tmp/out.$n" && break; kill -0 $!; sleep 0.1; done
  uri[n]=$(sed -n 's/^uri=//p' "$tmp/out.$n"); pids[n]=$(sed -n 's/^pids=//p' "$tmp/out.$n")
  fio --name=fill --ioengine=nbd --uri="${uri[n]}" --size=1g --rw=write --bs=1M --iodepth=8 --output-format=terse >/dev/null
done
for ((i = 1; i <= rounds; i++)); do
  echo "round $i of $rounds" >&2
  for n in 0 1 2 3; do
    scripts/bench/nbd-bench.sh $quick -r 1 -t "$secs" -j w4k_qd1,w4k_qd32,r4k_qd32,w1m_qd8 -p "${pids[n]}" "${uri[n]}" >>"$tmp/result.$n"
  done
done
jq -rn --slurpfile a "$tmp/result.0" --slurpfile b "$tmp/result.1" --slurpfile c "$tmp/result.2" --slurpfile d "$tmp/result.3" '
  def med: sort | .[((length-1)/2)|floor];
  def r: if . == null then "-" elif . < 10 then (.*100|round)/100 else round end;
  def col($j; $f): [[$a,$b,$c,$d][] | [.[].jobs[$j][$f]] | map(select(. != null)) | if length == 0 then null else med end];
  "| job | figure | 0 | 1 | 2 | 3 standbys |", "|---|---|---|---|---|---|",
  ( [["w4k_qd1","p50_us"],["w4k_qd32","iops"],["w4k_qd32","p99_us"],["w4k_qd32","server_cpu_us_per_op"],["r4k_qd32","iops"],["w1m_qd8","mbs"]][]
    | . as [$j,$f] | col($j;$f) | "| \($j) | \($f) | " + (map(r|tostring) | join(" | ")) + " |" ),
  "", "```mermaid", "xychart-beta", "    title \"4 KiB random writes at depth 32, a second\"",
  "    x-axis \"standbys\" [0, 1, 2, 3]", "    y-axis \"writes a second\" 0 --> \(col("w4k_qd32";"iops") | max * 1.1 | round)",
  "    bar \(col("w4k_qd32";"iops") | map(round) | tostring)", "```"'
