#!/usr/bin/env bash
# busy.sh [-n ROUNDS] [-t SECONDS] [-d DIR] [-v VOLUMES] [-m MODE]
#
# What 1, 10 and 100 busy volumes of one pair of nodes do together and each, all nodes on this machine: 4 KiB random writes, 4 at a
# time to each volume; and what one write at a time to each of ten waits for beside a volume that takes large writes. DIR (default
# /dev/shm) holds all backings. Prints a Markdown table of medians and a plot of the rates, for docs/figures.md.
#
# -v  how many volumes there are (default 100); the busy ones are some of them
# -m  sync, semisync or async (default sync)
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=3 secs=5 dir=/dev/shm volumes=100 mode=sync
while getopts n:t:d:v:m: o; do case $o in
  n) rounds=$OPTARG;; t) secs=$OPTARG;; d) dir=$OPTARG;; v) volumes=$OPTARG;; m) mode=$OPTARG;; *) sed -n '2,10p' "$0" >&2; exit 2;; esac; done
tmp=$(mktemp -d); disks=$(mktemp -d "$dir/hacluster-busy.XXXXXX"); serve=
cleanup() { exec 3>&- || true; [ -z "$serve" ] || wait "$serve" 2>/dev/null || true; rm -rf "$tmp" "$disks"; }
trap cleanup EXIT
go build -o "$tmp/serve" ./cmd/internal/e2e/serve
mkfifo "$tmp/in"
"$tmp/serve" -bin bin -disks "$disks" -size 16MiB -volumes "$volumes" -mode "$mode" <"$tmp/in" >"$tmp/out" & serve=$!
exec 3>"$tmp/in"
for _ in $(seq 900); do grep -q ^pids= "$tmp/out" && break; kill -0 $serve; sleep 0.1; done
mapfile -t uris < <(sed -n 's/^uri=//p' "$tmp/out")
pids=$(sed -n 's/^pids=//p' "$tmp/out")
used() { local s=0 p a; for p in ${pids//,/ }; do a=$(sed 's/^.*) //' "/proc/$p/stat"); set -- $a; s=$((s + ${12} + ${13})); done; echo $s; }

# run NAME JOBFILE: one line of JSON, with what all nodes took of the processor
run() {
  local c0 c1
  c0=$(used)
  timeout -k 5 $((secs + 60)) fio --output-format=json "$2" >"$tmp/fio.json"
  c1=$(used)
  sed -n '/^{/,$p' "$tmp/fio.json" | jq -c --arg name "$1" --argjson cpu $(((c1 - c0) * 1000000 / $(getconf CLK_TCK))) '
    ( [.jobs[] | select(.jobname == "light")] ) as $l | ([$l[].write.iops] | sort) as $each | ([$l[].write.total_ios] | add) as $ios
    | {name: $name, total: ($each | add), least: $each[0], most: $each[-1],
       p50: ([$l[].write.clat_ns.percentile["50.000000"]] | sort | .[length / 2 | floor] / 1000),
       p99: ([$l[].write.clat_ns.percentile["99.000000"]] | max / 1000),
       cpu: ($cpu / $ios), mbs: ([.jobs[] | select(.jobname == "heavy") | .write.bw_bytes] | add // 0 | . / 1e6)}' >>"$tmp/results"
}
jobs() { # jobs NUMBER DEPTH [heavy]
  printf '[global]\nioengine=nbd\nsize=16m\ntime_based\nruntime=%s\nramp_time=1\nrandrepeat=0\nnorandommap\n' "$secs"
  for ((i = 0; i < $1; i++)); do printf '[light]\nuri=%s\nrw=randwrite\nbs=4k\niodepth=%s\n' "${uris[i]}" "$2"; done
  [ -z "${3:-}" ] || printf '[heavy]\nuri=%s\nrw=write\nbs=1m\niodepth=8\n' "${uris[$1]}"
}
for ((r = 1; r <= rounds; r++)); do
  echo "round $r of $rounds" >&2
  for n in 1 10 100; do
    [ $n -le "$volumes" ] || continue
    jobs $n 4 >"$tmp/jobs"; run "$n" "$tmp/jobs"
  done
  jobs 10 1 >"$tmp/jobs"; run "10, one write at a time" "$tmp/jobs"
  jobs 10 1 heavy >"$tmp/jobs"; run "10, one write at a time, beside 1 with large writes" "$tmp/jobs"
done
jq -rn --slurpfile a "$tmp/results" '
  def med: sort | .[((length-1)/2)|floor];
  def r: if . < 10 then (.*100|round)/100 else round end;
  [$a[].name] as $names | ($names | reduce .[] as $n ([]; if index($n) then . else . + [$n] end)) as $names |
  def of($n; $f): [$a[] | select(.name == $n) | .[$f]] | med | r;
  "| busy volumes | writes a second | of each: least, most | p50, p99 (worst volume), µs | processor, µs a write | large writes, MB/s |", "|---|---|---|---|---|---|",
  ( $names[] | . as $n | "| \($n) | \(of($n;"total")) | \(of($n;"least")), \(of($n;"most")) | \(of($n;"p50")), \(of($n;"p99")) | \(of($n;"cpu")) | \(of($n;"mbs") | if . == 0 then "" else . end) |" ),
  "", "```", ( [$names[] | select(test("^[0-9]+$"))] | . as $ns | ([$ns[] | of(.;"total")] | max) as $top
    | $ns[] | . as $n | of($n;"total") as $v | "\("    " + $n | .[-4:]) volumes \("#" * (50 * $v / $top | round)) \($v)" ), "```"'
