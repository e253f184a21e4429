#!/usr/bin/env bash
# The tests, in the order in which they tell most for their time: the pure core and the model first, then everything
# under the race detector, then real processes.
set -euo pipefail
cd "$(dirname "$0")/.."
export HACLUSTER_BIN=$PWD/bin
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

# Pure packages, whose tests have one goroutine and many seeds: nothing for the race detector, which makes them ten times
# slower. That each text of a mutation still fits the code is among them.
pure="./cmd/internal/sim ./replication/maps ./cmd/internal/schedule"
step "the models: seeds of the protocol's pure core"
# shellcheck disable=SC2086
go test $pure -count=1 -timeout 30m
if [ -n "${HACLUSTER_LONG:-}" ]; then
  step "one primary and two standbys: 20,000 random schedules"
  HACLUSTER_SCHEDULES=20000 go test ./replication/primary -run TestRandomSchedules -count=1 -timeout 20m
  step "mutations: each broken rule is caught"
  HACLUSTER_MUTATIONS=1 go test ./cmd/internal/sim -run TestMutations -count=1 -timeout 20m
  HACLUSTER_MUTATIONS=1 go test ./replication/maps -run TestMutationsAreCaught -count=1 -timeout 20m
fi
step "power cuts at named points: 60 histories of two replicas (make powercuts runs 1,000)"
HACLUSTER_POWERCUTS=60 go test -tags failpoints ./replication -run TestK110PowerCutsAtNamedPointsLoseNothing -count=1 -timeout 20m
step "packages with the race detector"
go test -race -p 4 -timeout 20m $(go list ./... | grep -v -e /cmd/internal/sim -e /replication/maps -e /cmd/internal/schedule \
  -e /cmd/internal/e2e -e /heartbeat/membership -e /cmd/internal/ring3 -e '/replication$')
# These use one processor for minutes, and real processes wait more than they work: so they run side by side. They are
# niced: they take what the real processes leave, whose leases and deadlines are of real time.
#   ./replication: one test after the other
#   membership, ring3: virtual time on one processor. In a synctest bubble the race detector of Go 1.26 uses one context for
#   all timers, from several threads at once, and crashes (runtime.(*timer).maybeRunChan).
beside=$(mktemp)
trap 'rm -f "$beside"' EXIT
{ nice go test -race -timeout 20m ./replication && nice go test -race -cpu 1 -timeout 20m ./heartbeat/membership ./cmd/internal/ring3; } >"$beside" 2>&1 &
pid=$!
step "real processes, four tests at a time; beside them ./replication, membership and ring3 with the race detector"
failed=0
go test ./cmd/internal/e2e/... -count=1 -parallel 4 -timeout 20m || failed=1
wait "$pid" || failed=1
cat "$beside"
[ $failed = 0 ]
step "done"
