#!/usr/bin/env bash
# bench.sh [-n ROUNDS] [-t SECONDS] [-d DIR] [-j JOBS] [-i IO] [-s] [-a] [-q]
#
# hacluster beside QEMU's synchronous mirror (quorum of a local file and an NBD client), the standard fio jobs,
# interleaved in one run. DIR (default /dev/shm) holds all backings. Prints a Markdown table of medians: hacluster, QEMU,
# ratio; CPU is that of all daemons together.
#
# -i  auto, buffered or direct: how hacluster uses its backings (default auto: direct, except in memory)
# -s  hacluster with certificates: TLS between the nodes. QEMU stays without, and so does NBD on its unix socket.
# -a  another table: the mirror beside the same NBD server over one file, of the same disk; and what the disk allows: how
#     fast fio writes two files of it at a time, each, beside one alone (libaio, O_DIRECT, at the depth of the job).
# -q  neither waits for a quiet machine nor repeats what was disturbed: for a first look only
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=3 secs=5 dir=/dev/shm jobs=w4k_qd1,w4k_qd32,r4k_qd32,w1m_qd8 io=auto tls= alone= quick=
while getopts n:t:d:j:i:saq o; do case $o in
  n) rounds=$OPTARG;; t) secs=$OPTARG;; d) dir=$OPTARG;; j) jobs=$OPTARG;; i) io=$OPTARG;; s) tls=-tls;; a) alone=1;; q) quick=-q;;
  *) sed -n '2,14p' "$0" >&2; exit 2;; esac; done
tmp=$(mktemp -d); disks=$(mktemp -d "$dir/hacluster-bench.XXXXXX"); serves=()
cleanup() { exec 3>&- 4>&- 2>/dev/null || true; for s in "${serves[@]}"; do wait "$s" 2>/dev/null || true; done; rm -rf "$tmp" "$disks"; }
trap cleanup EXIT
QSD=${QSD:-$(scripts/bench/get-qsd-backports.sh "${QSD_DIR:-/tmp/qsd10}")}; export QSD
go build -o "$tmp/serve" ./cmd/internal/e2e/serve

up() { # NAME: waits for what was started as the last one, and fills its volume
  serves+=($!)
  for _ in $(seq 600); do grep -q ^pids= "$tmp/$1.out" && break; kill -0 $!; sleep 0.1; done
  declare -g "$1_uri=$(sed -n 's/^uri=//p' "$tmp/$1.out")" "$1_pids=$(sed -n 's/^pids=//p' "$tmp/$1.out")"
  local uri=$1_uri
  fio --name=fill --ioengine=nbd --uri="${!uri}" --size=1g --rw=write --bs=1M --iodepth=8 --output-format=terse >/dev/null; }

disk() { # JOB FILE...: operations a second of each file, as a line of JOB.FILES
  local how=--rw=randwrite; case $1 in w4k_qd1) how+=" --bs=4k --iodepth=1";; w4k_qd32) how+=" --bs=4k --iodepth=32";;
    w1m_qd8) how="--rw=write --bs=1M --iodepth=8";; *) return 0;; esac
  local job=$1 each=(); shift
  for f; do each+=(--name="${f##*/}" --filename="$f"); done
  # shellcheck disable=SC2086
  fio --name=global --ioengine=libaio --direct=1 --size=1g --time_based --runtime="$secs" $how --output-format=json "${each[@]}" |
    jq '[.jobs[].write.iops] | add / length' >>"$tmp/disk.$job.$#"; }

mkfifo "$tmp/ha.in" "$tmp/alone.in"
"$tmp/serve" -bin bin -disks "$disks" -io "$io" $tls <"$tmp/ha.in" >"$tmp/ha.out" & exec 3>"$tmp/ha.in"; up ha
[ $alone ] && { "$tmp/serve" -alone -disks "$disks" -io "$io" <"$tmp/alone.in" >"$tmp/alone.out" & exec 4>"$tmp/alone.in"; up alone; }
for ((i = 1; i <= rounds; i++)); do
  echo "round $i of $rounds" >&2
  scripts/bench/nbd-bench.sh $quick -r 1 -t "$secs" -j "$jobs" -p "$ha_pids" "$ha_uri" >"$tmp/ha.$i"
  [ $alone ] && scripts/bench/nbd-bench.sh $quick -r 1 -t "$secs" -j "$jobs" -p "$alone_pids" "$alone_uri" >"$tmp/alone.$i"
  [ $alone ] && for job in ${jobs//,/ }; do disk "$job" "$disks/f1" "$disks/f2"; disk "$job" "$disks/f1"; done
  scripts/bench/peer-qsd-mirror.sh -k mirror -c "${CACHE:-direct-native}" -d "$disks/q1" -e "$disks/q2" -- $quick -r 1 -t "$secs" -j "$jobs" >"$tmp/qemu.$i"
done

table() { # NAME TITLE: hacluster beside NAME
  jq -rn --arg title "$2" --slurpfile ha <(cat "$tmp"/ha.[0-9]*) --slurpfile other <(cat "$tmp/$1".[0-9]*) '
  def med: sort | .[((length-1)/2)|floor];
  def r: if . == null then "-" elif . < 10 then (.*100|round)/100 else round end;
  def col($s; $j; $f): [$s[].jobs[$j][$f]] | map(select(. != null)) | if length == 0 then null else med end;
  "| job | figure | hacluster | \($title) | ratio |", "|---|---|---|---|---|",
  ( [["w4k_qd32","iops"],["w4k_qd1","p50_us"],["w1m_qd8","mbs"],["r4k_qd32","iops"],["w4k_qd32","p99_us"],["w4k_qd32","server_cpu_us_per_op"],["r4k_qd32","server_cpu_us_per_op"]][]
    | . as [$j,$f] | col($ha;$j;$f) as $a | col($other;$j;$f) as $b | select($a != null)
    | "| \($j) | \($f) | \($a|r) | \($b|r) | \(if $b then ($a/$b)|r else "-" end) |" )'; }
table qemu "QEMU mirror"
[ $alone ] && { echo; table alone unmirrored; echo
  for job in ${jobs//,/ }; do [ -e "$tmp/disk.$job.1" ] || continue; jq -rn --arg job "$job" --slurpfile one "$tmp/disk.$job.1" --slurpfile two "$tmp/disk.$job.2" \
    'def med: sort | .[((length-1)/2)|floor]; "\($job): the disk allows \(100*($two|med)/($one|med)|round/100) of the rate of one file"'; done; }
exit 0
