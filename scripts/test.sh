#!/usr/bin/env bash
# The tests, in the order in which they tell most for their time: the pure core and the model first, then everything
# under the race detector, then real processes. What was skipped is counted at the end, with the reasons.
set -euo pipefail
cd "$(dirname "$0")/.."
export HACLUSTER_BIN=$PWD/bin
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
touch "$tmp/skips"
go build -o bin/ ./scripts/tools/testreport
limit=20m
[ -z "${HACLUSTER_LONG:-}" ] || limit=60m

# tests takes the arguments of go test. make lint vets all that has no other build tags.
tests() { go test -json "$@" | bin/testreport -skips "$tmp/skips"; }
raced() { CGO_ENABLED=1 tests -race -vet=off -timeout $limit "$@"; }

# beside starts a function with less claim to the processors than what is in front of it, and joined waits for it.
beside() { (renice -n 10 $BASHPID >/dev/null; "$@") >"$tmp/beside" 2>&1 & pid=$!; }
joined() { local failed=0; wait $pid || failed=1; cat "$tmp/beside"; return $failed; }

# Packages without a goroutine, in code and tests: nothing for the race detector, which makes them ten times slower. Those that
# decide are held to it by archtest. That each text of a mutation still fits the code is among their tests.
pure="./cmd/internal/sim ./cmd/internal/schedule ./replication/maps ./replication/order ./replication/primary ./replication/resync
  ./replication/role ./replication/standby ./replication/verify ./replication/wire ./heartbeat/cluster ./heartbeat/failover
  ./blockdev/bitmap ./blockdev/frontend/nbd/nbdproto"
powercuts() { HACLUSTER_POWERCUTS=60 tests -tags failpoints ./replication -run TestK110PowerCutsAtNamedPointsLoseNothing -count=1 -timeout 20m; }
step "pure packages and the models: seeds of the protocol's core; beside them power cuts at named points: 60 histories of two replicas (make powercuts runs 1,000)"
beside powercuts
failed=0
# shellcheck disable=SC2086
tests -vet=off $pure -count=1 -timeout 30m || failed=1
joined || failed=1
[ $failed = 0 ]
if [ -n "${HACLUSTER_LONG:-}" ]; then
  step "one primary and two standbys: 20,000 random schedules"
  HACLUSTER_SCHEDULES=20000 tests ./replication/primary -run TestRandomSchedules -count=1 -timeout 20m
  step "mutations: each broken rule is caught"
  HACLUSTER_MUTATIONS=1 tests ./cmd/internal/sim -run TestMutations -count=1 -timeout 20m
  HACLUSTER_MUTATIONS=1 tests ./replication/maps -run TestMutationsAreCaught -count=1 -timeout 20m
fi
step "packages with the race detector"
# shellcheck disable=SC2046,SC2086
raced -p 4 $(go list ./... | grep -vxFf <(go list $pure ./cmd/internal/e2e/... ./replication ./heartbeat/membership ./cmd/internal/ring3))
# These use one processor for minutes, and real processes wait more than they work: so they run side by side, and these take
# what the real processes leave, whose leases and deadlines are of real time.
#   ./replication: one test after the other
#   membership, ring3: virtual time on one processor. In a synctest bubble the race detector of Go 1.26 uses one context for
#   all timers, from several threads at once, and crashes (runtime.(*timer).maybeRunChan).
one_by_one() { raced ./replication && raced -cpu 1 ./heartbeat/membership ./cmd/internal/ring3; }
step "real processes, six tests at a time; beside them ./replication, membership and ring3 with the race detector"
beside one_by_one
tests -vet=off ./cmd/internal/e2e/... -count=1 -parallel 6 -timeout $limit || failed=1
joined || failed=1
[ $failed = 0 ]
step "done; skipped: $(wc -l <"$tmp/skips")"
sort "$tmp/skips"
