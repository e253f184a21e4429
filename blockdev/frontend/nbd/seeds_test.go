package nbd_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

var record = flag.Bool("record", false, "record what real clients say as seeds under testdata/fuzz")

// TestRecordSeeds, with -record, runs real clients against a small volume and keeps what they said.
func TestRecordSeeds(t *testing.T) {
	if !*record {
		t.Skip("only with -record: it writes to testdata")
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
			for i, said := range recorded(t, name, args) {
				hs := handshakeLen(said)
				writeSeed(t, "FuzzHandshake", fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("[]byte(%q)\n", said[:hs]))
				if len(said) > hs && len(said) < 32<<10 {
					writeSeed(t, "FuzzRequests", fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("bool(true)\n[]byte(%q)\n", said[hs:]))
				}
			}
		})
	}
}

func recorded(t *testing.T, name string, args func(string) []string) [][]byte {
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
	return rec.Close()
}

// handshakeLen is where the options of a recorded client end.
func handshakeLen(said []byte) int {
	pos := 4
	for pos+nbdproto.OptionLen <= len(said) {
		h := nbdproto.ParseOption(said[pos:])
		pos += nbdproto.OptionLen + int(h.Len)
		if h.Option == nbdproto.OptGo || h.Option == nbdproto.OptExportName || h.Option == nbdproto.OptAbort {
			break
		}
	}
	return min(pos, len(said))
}

func writeSeed(t *testing.T, fuzz, name, values string) {
	dir := filepath.Join("testdata", "fuzz", fuzz)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := []byte("go test fuzz v1\n" + values)
	name = fmt.Sprintf("%s-%x", name, sha256.Sum256(b))[:len(name)+9]
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}
