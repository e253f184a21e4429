package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev"
)

// memory is a volume.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error)  { return copy(p, m[off:]), nil }
func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }
func (m memory) Zero(r blockdev.Range, _ bool) error      { clear(m[r.Off:r.End()]); return nil }
func (m memory) Flush() error                             { return nil }
func putFile(t *testing.T, path string, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTransferThereAndBackNoticesOneByte(t *testing.T) {
	const size = 3*chunk + 5000 // the last piece is a short one
	dir := t.TempDir()
	image, out := filepath.Join(dir, "image"), filepath.Join(dir, "out")
	putFile(t, image, "")
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, chunk - 1, size - 1} {
		if _, err := f.WriteAt([]byte("x"), off); err != nil {
			t.Fatal(err)
		}
	}
	vol, halves := make(memory, size+100), 0
	for i := range vol {
		vol[i] = 0xee // of an earlier use
	}
	if _, err := copyIn(t.Context(), vol, image, size, func() error { halves++; return nil }); err != nil || halves != 1 {
		t.Fatalf("half was reached %d times, %v", halves, err)
	}
	if err := copyOut(t.Context(), vol, image, out, size); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(out); string(got) != string(vol[:size]) {
		t.Fatal("the file is not what the volume holds")
	}
	vol[2*chunk+77] = 1
	if err := copyOut(t.Context(), vol, image, out, size); err == nil {
		t.Fatal("a changed byte was not noticed")
	}
}

func TestFileSystemCheckNoticesWhatIsNotTheSame(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for name, c := range map[string]struct {
		change func(t *testing.T, tree string)
		want   string // empty: all is the same
	}{
		"nothing":     {func(*testing.T, string) {}, ""},
		"content":     {func(t *testing.T, d string) { putFile(t, d+"/sub/b", "worse") }, "another content"},
		"lost file":   {func(t *testing.T, d string) { putFile(t, d+"/sub/new", "") }, "lost"},
		"file to dir": {func(t *testing.T, d string) { os.Remove(d + "/a"); os.Mkdir(d+"/a", 0o755) }, "it was a"},
		"extra file":  {func(t *testing.T, d string) { os.Remove(d + "/a") }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			putFile(t, dir+"/tree/a", strings.Repeat("abc", 10000))
			putFile(t, dir+"/tree/sub/b", "better")
			tr, image := tree{dir: dir + "/tree"}, dir+"/image"
			if err := makeImage(t.Context(), tr, image, 8); err != nil {
				t.Fatal(err)
			}
			c.change(t, tr.dir)
			err := checkImage(t.Context(), tr, image, dir+"/out")
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestFileSystemCheckNoticesDamage(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	dir := t.TempDir()
	putFile(t, dir+"/tree/a", "abc")
	tr, image := tree{dir: dir + "/tree"}, dir+"/image"
	if err := makeImage(t.Context(), tr, image, 8); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 4096), 4096); err != nil { // the group descriptors
		t.Fatal(err)
	}
	if err := checkImage(t.Context(), tr, image, dir+"/out"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("%v", err)
	}
}

func TestTreeOfNothingIsRefused(t *testing.T) {
	if _, err := copyTree(t.TempDir(), t.TempDir(), 1); err == nil {
		t.Fatal("an empty folder was taken")
	}
}
