#!/usr/bin/env bash
# fuzz.sh [SECONDS]: runs every fuzz target of the tree for SECONDS (60) each; the first finding ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
t=${1:-60}
grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | sort | while read -r f; do
  for name in $(grep -oE '^func Fuzz[A-Za-z0-9_]*' "$f" | sed 's/func //'); do
    echo "== $(dirname "$f") $name"
    go test "$(dirname "$f")" -run '^$' -fuzz "^$name\$" -fuzztime "${t}s" -fuzzminimizetime 20x
  done
done
