#!/bin/sh
# Generates the Go code of every .proto file under proto/, beside the file. The plugins are built at the versions
# that go.mod beside this script pins, into a private folder; protoc itself is the system's (proto3, 3.21 or newer).
# With --check nothing is written: it fails if the committed code is not what would be generated.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir "$work/bin" "$work/out"

cd "$root"
for plugin in google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc; do
	(cd "$here" && CGO_ENABLED=0 go build -o "$work/bin/" "$plugin")
done
PATH="$work/bin:$PATH"
export PATH

files=$(cd proto && find . -name '*.proto' | sort)
(cd proto && protoc -I . --go_out="$work/out" --go_opt=paths=source_relative \
	--go-grpc_out="$work/out" --go-grpc_opt=paths=source_relative $files)

# same compares two generated files but for the line that names protoc's own version.
same() {
	grep -v '^// - protoc ' "$1" >"$work/a" && grep -v '^// - protoc ' "$2" >"$work/b" && cmp -s "$work/a" "$work/b"
}

if [ "${1:-}" = --check ]; then
	for f in $(cd "$work/out" && find . -name '*.go'); do
		same "$work/out/$f" "proto/$f" || {
			echo "proto/${f#./} is not what its .proto file says: run scripts/tools/proto/generate.sh and commit" >&2
			exit 1
		}
	done
	exit 0
fi
cp -R "$work/out/." proto/
