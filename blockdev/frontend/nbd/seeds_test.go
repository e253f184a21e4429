package nbd_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

var record = flag.Bool("record", false, "keep what real clients say as seeds under testdata/fuzz")

// longestSeed keeps what the fuzzer changes short.
const longestSeed = 32 << 10

// TestRecordSeeds runs real clients against a small volume and makes seeds of what they said, which are kept with
// -record only. Played to another server, each must be served to its end and leave what the client left.
func TestRecordSeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fuzz")
	if *record {
		dir = filepath.Join("testdata", "fuzz")
	}
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, append(pattern(1500, 1), make([]byte, 6692)...), 0o600); err != nil {
		t.Fatal(err)
	}
	clients := map[string]func(uri string) []string{
		"qemu-img": func(uri string) []string { return []string{"convert", "-n", "-f", "raw", "-O", "raw", file, uri} },
		"qemu-io": func(uri string) []string {
			return []string{"-f", "raw", "-c", "write -f -P 7 1k 512", "-c", "write -z -u 0 8k", "-c", "discard 8k 64k",
				"-c", "read 0 1k", "-c", "flush", uri}
		},
		"nbdinfo": func(uri string) []string { return []string{"--map", uri} },
		"nbdcopy": func(uri string) []string { return []string{"--connections=1", file, uri} },
		"fio": func(uri string) []string {
			return []string{"--name=s", "--ioengine=nbd", "--uri=" + uri, "--rw=randrw", "--bs=512", "--size=4k", "--iodepth=4"}
		},
	}
	for name, args := range clients {
		t.Run(name, func(t *testing.T) {
			needs(t, name)
			said, left := recorded(t, name, args)
			all := newModel(true)
			for i, b := range said {
				n, structured := options(t, b)
				id := fmt.Sprintf("%s-%d", name, i)
				handshake := writeSeed(t, filepath.Join(dir, "FuzzHandshake"), id, fmt.Sprintf("[]byte(%q)\n", b[:n]))
				if len(b) == n {
					out, _ := converse(t, readSeed(t, handshake))
					wholeAnswers(t, out)
					continue
				}
				if len(b) > longestSeed {
					t.Fatalf("connection %d said %d bytes, a seed has at most %d", i, len(b), longestSeed)
				}
				requests := writeSeed(t, filepath.Join(dir, "FuzzRequests"), id, fmt.Sprintf("bool(%t)\n[]byte(%q)\n", structured, b[n:]))
				playBack(t, structured, readSeed(t, handshake), readSeed(t, requests))
				all.run(b[n:])
			}
			if len(all.out) == 0 {
				t.Errorf("%d connections, and no request that is answered", len(said))
			}
			if !bytes.Equal(all.data, left) {
				t.Error("the requests that were recorded do not make what the client left on the device")
			}
		})
	}
}

// playBack gives a recorded conversation to another server.
func playBack(t *testing.T, structured bool, handshake, requests []byte) {
	t.Helper()
	out, dev := converse(t, slices.Concat(handshake, requests))
	if last := wholeAnswers(t, out); last.Option != nbdproto.OptGo || last.Rep != nbdproto.RepAck {
		t.Errorf("the last answer to an option is %+v, want that to GO", last)
	}
	m := newModel(structured)
	if !m.run(requests) {
		t.Errorf("a request is cut off or none: %q", requests)
	}
	if !bytes.HasSuffix(out, m.out) {
		t.Errorf("answers differ:\n got %x\nwant %x at the end", out, m.out)
	}
	if !bytes.Equal(m.data, dev.Snapshot()) {
		t.Error("the device's content differs")
	}
}

// recorded runs a client; it returns what it said on each connection, and what the device holds then.
func recorded(t *testing.T, name string, args func(string) []string) (said [][]byte, left []byte) {
	t.Helper()
	dev := nbdtest.NewMem(fuzzSize)
	r := newRigOn(t, nbd.Config{}, dev, nbdtest.SyncExport(dev, 1))
	socket := filepath.Join(t.TempDir(), "proxy")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	rec := nbdtest.Record(l, r.addr)
	mustRun(t, name, args("nbd+unix:///vol?socket="+socket)...)
	eventually(t, "all connections have ended", func() bool { return r.Stats().Connections == 0 })
	return rec.Close(), dev.Snapshot()
}

// options reads those of a recorded client: where they end, and whether it asked for structured replies.
func options(t *testing.T, said []byte) (end int, structured bool) {
	t.Helper()
	for end = 4; end+nbdproto.OptionLen <= len(said); {
		h := nbdproto.ParseOption(said[end:])
		end += nbdproto.OptionLen + int(h.Len)
		if h.Magic != nbdproto.MagicOption || end > len(said) {
			break
		}
		structured = structured || h.Option == nbdproto.OptStructuredReply
		if h.Option == nbdproto.OptGo || h.Option == nbdproto.OptExportName || h.Option == nbdproto.OptAbort {
			return end, structured
		}
	}
	t.Fatalf("options without an end: %q", said)
	return 0, false
}

func writeSeed(t *testing.T, dir, name, values string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := []byte("go test fuzz v1\n" + values)
	path := filepath.Join(dir, fmt.Sprintf("%s-%x", name, sha256.Sum256(b))[:len(name)+9])
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// readSeed returns the bytes of a seed, which come last in it.
func readSeed(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	quoted, ok := strings.CutPrefix(lines[len(lines)-1], "[]byte(")
	b, err := strconv.Unquote(strings.TrimSuffix(quoted, ")"))
	if lines[0] != "go test fuzz v1" || !ok || err != nil {
		t.Fatalf("%s is no seed: %v", path, err)
	}
	return []byte(b)
}
