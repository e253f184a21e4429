package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev/frontend/nbd"
)

// packages are Debian's names of what has the judges.
var packages = map[string]string{"qemu-io": "qemu-utils", "qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils",
	"nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin", "fio": "fio"}

// needs skips a test without its judge.
func needs(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed (Debian: %s)", name, packages[name])
	}
}

// run runs a judge and returns what it said; a test without the judge is skipped.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	needs(t, name)
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.TempDir() // fio leaves files
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := run(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// overBoth runs a test on a unix and on a tcp socket.
func overBoth(t *testing.T, f func(*testing.T, *rig)) {
	t.Run("unix", func(t *testing.T) { f(t, newRig(t, nbd.Config{})) })
	t.Run("tcp", func(t *testing.T) { f(t, newTCPRig(t, nbd.Config{})) })
}

func newTCPRig(t *testing.T, cfg nbd.Config) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dev, e := memExport()
	return newRigOver(t, cfg, dev, e, l)
}

func qemuIO(t *testing.T, r *rig, commands ...string) string {
	t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out := mustRun(t, "qemu-io", append(args, r.uri("vol"))...)
	if strings.Contains(out, "failed") {
		t.Fatalf("qemu-io:\n%s", out)
	}
	return out
}

func TestQemuIO(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		qemuIO(t, r, "write -P 0x11 0 1M", "write -f -P 0x22 4093 8195", "read -P 0x22 4093 8195", "read -P 0x11 12288 1036288",
			"write -z 64k 64k", "read -P 0 64k 64k", "write -z -u 256k 64k", "discard 512k 128k", "read -P 0 512k 128k",
			"writev -P 0x33 2M 4k 8k 16k", "aio_write -P 0x44 3M 64k", "aio_write -P 0x55 4M 64k", "aio_flush",
			"read -P 0x44 3M 64k", "read -P 0x55 4M 64k", "flush", "write -P 0x66 8M 8M", "read -P 0x66 8M 8M")
		if c := r.dev.Counts(); c.FUAs == 0 || c.Flushes == 0 || c.Unmaps == 0 || c.Zeroes <= c.Unmaps {
			t.Fatalf("the device saw %+v", c)
		}
		if out, err := run(t, "qemu-io", "-f", "raw", "-c", "read 16M 512", r.uri("vol")); err == nil && !strings.Contains(out, "failed") {
			t.Fatalf("read behind the end: %s", out)
		}
	})
}

func TestQemuIOReadOnly(t *testing.T) { // faults.md N35
	r := newRig(t, nbd.Config{})
	r.export.SetReadOnly(true)
	out, err := run(t, "qemu-io", "-f", "raw", "-c", "write 0 4k", r.uri("vol"))
	if err == nil && !strings.Contains(out, "not permitted") && !strings.Contains(out, "read-only") {
		t.Fatalf("qemu-io wrote: %s", out)
	}
	mustRun(t, "qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 4k", r.uri("vol"))
	if r.dev.Counts().Writes != 0 {
		t.Fatal("the device was written")
	}
}

func TestQemuImg(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		file := filepath.Join(t.TempDir(), "image")
		content := make([]byte, testSize)
		copy(content[1<<20:], pattern(3<<20, 5))
		copy(content[9<<20:], pattern(70000, 6))
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, r.uri("vol"))
		if !bytes.Equal(r.dev.Snapshot(), content) {
			t.Fatal("the device differs from the image")
		}
		mustRun(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, r.uri("vol"))
		back := file + ".back"
		mustRun(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", r.uri("vol"), back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("the copy differs (%v)", err)
		}
		var extents []struct {
			Start, Length int64
			Data, Zero    bool
		}
		out := mustRun(t, "qemu-img", "map", "--output=json", "-f", "raw", r.uri("vol"))
		if err := json.Unmarshal([]byte(out), &extents); err != nil || len(extents) < 3 || !extents[0].Zero || extents[0].Data {
			t.Fatalf("map (%v): %s", err, out)
		}
	})
}

func TestNbdinfo(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		var info struct {
			Protocol   string
			Structured bool
			Exports    []struct {
				Name      string   `json:"export-name"`
				Size      int64    `json:"export-size"`
				Contexts  []string `json:"contexts"`
				ReadOnly  bool     `json:"is_read_only"`
				Cache     bool     `json:"can_cache"`
				DF        bool     `json:"can_df"`
				FastZero  bool     `json:"can_fast_zero"`
				Flush     bool     `json:"can_flush"`
				FUA       bool     `json:"can_fua"`
				MultiConn bool     `json:"can_multi_conn"`
				Trim      bool     `json:"can_trim"`
				Zero      bool     `json:"can_zero"`
				MinBlock  int64    `json:"block_size_minimum"`
				Preferred int64    `json:"block_size_preferred"`
				MaxBlock  int64    `json:"block_size_maximum"`
			}
		}
		out := mustRun(t, "nbdinfo", "--json", "--no-content", r.uri("vol"))
		if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Exports) != 1 {
			t.Fatalf("%v: %s", err, out)
		}
		e := info.Exports[0]
		all := e.Cache && e.DF && e.FastZero && e.Flush && e.FUA && e.MultiConn && e.Trim && e.Zero && !e.ReadOnly
		if !all || !info.Structured || e.Size != testSize || e.MinBlock != 1 || e.Preferred != 4096 || e.MaxBlock != 32<<20 {
			t.Fatalf("nbdinfo: %s", out)
		}
		if len(e.Contexts) != 1 || e.Contexts[0] != "base:allocation" {
			t.Fatalf("contexts: %s", out)
		}
		if out := mustRun(t, "nbdinfo", "--list", "--json", r.uri("")); !strings.Contains(out, `"vol"`) {
			t.Fatalf("list: %s", out)
		}
		if out := mustRun(t, "nbdinfo", "--map", r.uri("vol")); !strings.Contains(out, "hole,zero") {
			t.Fatalf("map: %s", out)
		}
		out, err := run(t, "nbdinfo", r.uri("other"))
		if err == nil || !strings.Contains(out, "other") {
			t.Fatalf("standby's export: %v %s", err, out)
		}
	})
}

func TestNbdcopy(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		file := filepath.Join(t.TempDir(), "image")
		content := make([]byte, testSize)
		copy(content[2<<20:], pattern(5<<20+1234, 5))
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "nbdcopy", "--connections=4", "--requests=32", "--flush", file, r.uri("vol"))
		if !bytes.Equal(r.dev.Snapshot(), content) {
			t.Fatal("the device differs from the image")
		}
		back := file + ".back"
		mustRun(t, "nbdcopy", "--connections=4", r.uri("vol"), back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("the copy differs (%v)", err)
		}
		second, e := memExport()
		t.Cleanup(e.Close)
		r.exports.Serve("second", e)
		mustRun(t, "nbdcopy", "--synchronous", r.uri("vol"), r.uri("second"))
		if !bytes.Equal(second.Snapshot(), content) {
			t.Fatal("the copy from server to server differs")
		}
	})
}

func TestFioVerifies(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		out := mustRun(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+r.uri("vol"), "--rw=randwrite", "--bsrange=512-128k",
			"--iodepth=16", "--size=8m", "--verify=crc32c", "--do_verify=1", "--fsync=32", "--trim_percentage=10")
		if !strings.Contains(out, "err= 0") {
			t.Fatal(out)
		}
		if r.dev.Counts().Flushes == 0 {
			t.Fatal("no flush arrived")
		}
	})
}

// The client is judged too: by qemu's server.
func TestOurClientWithQemuNbd(t *testing.T) {
	needs(t, "qemu-nbd")
	dir := t.TempDir()
	image, socket := filepath.Join(dir, "image"), filepath.Join(dir, "s")
	if err := os.WriteFile(image, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("qemu-nbd", "-f", "raw", "-x", "vol", "-k", socket, "-t", "--discard=unmap", image)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill() // an interrupt would be lost on one that is still starting
		cmd.Wait()
	}()
	eventually(t, "qemu-nbd listens", func() bool { // the socket is there before anybody listens on it
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	exerciseClient(t, "nbd+unix:///vol?socket="+socket, 4<<20)
}

func TestQemuNbdListsWhatIsServed(t *testing.T) {
	r := newRig(t, nbd.Config{})
	out := mustRun(t, "qemu-nbd", "--list", "-k", r.addr.String())
	for _, want := range []string{"exports available: 1", "export: 'vol'", "size:  16777216", "multi", "fast-zero", "base:allocation"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
