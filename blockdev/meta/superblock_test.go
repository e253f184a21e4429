package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew: only when a new version of the format is made")

const golden = "testdata/superblock-v1.bin"

func id(from byte) (out ID) {
	for i := range out {
		out[i] = from + byte(i)
	}
	return out
}

// sample has something in every field.
func sample() Superblock {
	return Superblock{
		ClusterID: id(0x10), VolumeID: id(0x30), Node: "alpha", Size: 20 << 30, BlockSize: 4096,
		DevicePath: "/dev/vg0/pgdata", Attachment: "file:254.0:1311.18753a0c1f2e3d4c:9", Generation: 2, Epoch: 7, ReservedGen: 1,
		Inconsistent: true, Failed: true,
		CleanStop: CleanStop{Valid: true, BootID: id(0x50), Attachment: "file:254.0:1311.18753a0c1f2e3d4c:8", Start: 41},
	}
}

func binding(sb Superblock) Binding {
	return Binding{
		ClusterID: sb.ClusterID, VolumeID: sb.VolumeID, Node: sb.Node, Size: sb.Size, BlockSize: sb.BlockSize,
		DevicePath: sb.DevicePath, Attachment: sb.Attachment,
	}
}

func created(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "superblock")
	if err := Create(path, sample()); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path, binding(sample()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // a test may have closed it
	return f
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func put(t testing.TB, path string, p []byte) {
	t.Helper()
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

// seal makes the checksum of a changed copy right again.
func seal(p []byte) { binary.LittleEndian.PutUint32(p[offChecksum:], checksum(p)) }

// What an older program can read is written as it did.
func TestFormatsAreThoseOfTheGoldenFiles(t *testing.T) {
	resized := sample()
	resized.Resized = 0x0102030405060708
	added := sample()
	added.Replica = 0x01020304
	for name, sb := range map[string]Superblock{golden: sample(), "testdata/superblock-v2.bin": resized, "testdata/superblock-v3.bin": added} {
		path := filepath.Join(t.TempDir(), "superblock")
		if err := Create(path, sb); err != nil {
			t.Fatal(err)
		}
		got := content(t, path)
		if *update {
			put(t, name, got)
		}
		if want := content(t, name); !bytes.Equal(got, want) {
			t.Errorf("%s: the format changed without a new version:\n%s", name, cmp.Diff(want, got))
		}
		c, err := choose(content(t, name))
		if err != nil || c.damage != nil {
			t.Fatal(name, err, c.damage)
		}
		if diff := cmp.Diff(sb, *c.sb); diff != "" {
			t.Errorf("%s reads differently:\n%s", name, diff)
		}
	}
}

func TestUpdatesSurviveReopening(t *testing.T) {
	path := created(t)
	for i := range uint64(5) {
		f := open(t, path)
		if got := f.Get().Epoch; got != 7+i {
			t.Fatalf("after %d updates the epoch is %d", i, got)
		}
		if err := f.Update(func(sb *Superblock) { sb.Epoch++; sb.Failed = false }); err != nil {
			t.Fatal(err)
		}
		want := sample()
		want.Epoch, want.Failed, want.Generation = 8+i, false, 3+i
		if diff := cmp.Diff(want, f.Get()); diff != "" {
			t.Fatal(diff)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if len(f.Repaired()) != 0 {
			t.Errorf("a sound file was repaired: %q", f.Repaired())
		}
	}
}

// flips is a change to each field of a copy, faults.md M57.
var flips = []struct {
	field string
	at    int
}{
	{"magic", offMagic + 3}, {"version", offVersion}, {"flags", offFlags + 2}, {"generation", offGeneration + 1},
	{"epoch", offEpoch}, {"formation generation", offReservedGen}, {"size", offSize + 3}, {"block size", offBlockSize + 1},
	{"cluster id", offClusterID + 5}, {"volume id", offVolumeID}, {"node", offNode}, {"attachment", offAttachment + 6},
	{"device path", offDevicePath + 1}, {"clean-stop boot id", offCleanBootID}, {"clean-stop attachment", offCleanAttachment},
	{"clean-stop start number", offCleanStart}, {"number of the size", offResized}, {"reserved bytes", offRest + 100}, {"checksum", offChecksum},
}

func TestM57FieldFlippedInOneCopyIsRepairedFromTheOther(t *testing.T) {
	for _, c := range flips {
		for bad := range 2 {
			t.Run(fmt.Sprintf("%s in copy %d", c.field, bad), func(t *testing.T) {
				path := created(t)
				p := content(t, path)
				p[bad*copySize+c.at] ^= 0x40
				put(t, path, p)
				f := open(t, path)
				if len(f.Repaired()) != 1 || !strings.Contains(f.Repaired()[0], fmt.Sprintf("copy %d", bad)) || !strings.Contains(f.Repaired()[0], c.field) {
					t.Errorf("Repaired() = %q, want copy %d and %q named", f.Repaired(), bad, c.field)
				}
				got, want := f.Get(), sample()
				want.Generation = got.Generation
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				f.Close()
				if again := open(t, path); len(again.Repaired()) != 0 {
					t.Errorf("repaired again: %q", again.Repaired())
				}
			})
		}
	}
}

func TestM57BothCopiesDamagedIsRefusedAndLeftAlone(t *testing.T) {
	for _, c := range flips {
		t.Run(c.field, func(t *testing.T) {
			path := created(t)
			p := content(t, path)
			p[c.at] ^= 0x40
			p[copySize+c.at] ^= 0x40
			put(t, path, p)
			_, err := Open(path, binding(sample()))
			if !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNoSuperblock) {
				t.Errorf("Open = %v, want ErrCorrupt", err)
			}
			if err := Create(path, sample()); !errors.Is(err, ErrExists) {
				t.Errorf("Create over a damaged one = %v, want ErrExists", err)
			}
			if !bytes.Equal(content(t, path), p) {
				t.Error("the damaged file was changed")
			}
		})
	}
}

// faults.md M57, M60: sealed again, a changed field is no damage but another identity.
func TestM60AnotherIdentityIsRefusedByTheNameOfTheField(t *testing.T) {
	for _, c := range []struct {
		field, found, expected string
		change                 func(*Superblock)
	}{
		{"cluster id", "1112", "1011", func(sb *Superblock) { sb.ClusterID = id(0x11) }},
		{"volume id", "3132", "3031", func(sb *Superblock) { sb.VolumeID = id(0x31) }},
		{"node", `"beta"`, `"alpha"`, func(sb *Superblock) { sb.Node = "beta" }},
		{"size", "4096", "21474836480", func(sb *Superblock) { sb.Size = 4096 }}, // faults.md M66, C74
		{"block size", "512", "4096", func(sb *Superblock) { sb.BlockSize = 512 }},
		{"device path", "/dev/sdx", "/dev/vg0/pgdata", func(sb *Superblock) { sb.DevicePath = "/dev/sdx" }},
		{"attachment", "1312", "1311", func(sb *Superblock) { sb.Attachment = "file:254.0:1312:9" }},
	} {
		t.Run(c.field, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "superblock")
			other := sample()
			c.change(&other)
			if err := Create(path, other); err != nil {
				t.Fatal(err)
			}
			before := content(t, path)
			_, err := Open(path, binding(sample()))
			var m *Mismatch
			if !errors.Is(err, ErrMismatch) || !errors.As(err, &m) {
				t.Fatalf("Open = %v, want ErrMismatch", err)
			}
			if m.Field != c.field || !strings.Contains(m.Found, c.found) || !strings.Contains(m.Expected, c.expected) || m.Do == "" {
				t.Errorf("%+v; want %s, %s, %s", m, c.field, c.found, c.expected)
			}
			if !bytes.Equal(content(t, path), before) {
				t.Error("the foreign superblock was changed")
			}
		})
	}
}

func TestEveryMismatchIsToldAtOnce(t *testing.T) {
	_, err := Open(created(t), Binding{})
	for _, field := range []string{"cluster id", "volume id", "node", "size", "block size", "device path"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestAttachmentMayChangeInWhatARestartChanges(t *testing.T) {
	for _, c := range []struct {
		name, stored, now string
		same              bool
	}{
		{"same", "file:254.0:1311.ab:9", "file:254.0:1311.ab:9", true},
		{"attached again", "file:254.0:1311.ab:9", "file:8.1:1311.ab:77", true},
		{"without a disk", "file:0.41:1311.ab", "file:0.44:1311.ab", true},
		{"another inode", "file:254.0:1311.ab:9", "file:254.0:1312.ab:9", false},
		{"inode given out again", "file:254.0:1311.ab:9", "file:254.0:1311.ac:9", false},
		{"birth not told any more", "file:254.0:1311.ab:9", "file:254.0:1311:9", true},
		{"file became device", "file:254.0:1311.ab:9", "blk:254:0:9", false},
		{"device became file", "blk:254:0:9", "file:254.0:1311.ab:9", false},
		{"device attached again", "blk:8:0:9", "blk:8:16:12", true},
		{"none given", "blk:8:0:9", "", true},
		{"odd ones", "file", "file:1", true},
	} {
		if why, same := sameBacking(c.stored, c.now); same != c.same || same == (why != "") {
			t.Errorf("%s: sameBacking(%q, %q) = %q, %v; want %v", c.name, c.stored, c.now, why, same, c.same)
		}
	}
}

// faults.md M59: nothing is made where nothing is.
func TestM59AbsentOrZeroedIsNoSuperblockAndStaysSo(t *testing.T) {
	dir := t.TempDir()
	for name, p := range map[string][]byte{"absent": nil, "empty": {}, "short": make([]byte, 100), "zeroed": make([]byte, fileSize)} {
		path := filepath.Join(dir, name)
		if p != nil {
			put(t, path, p)
		}
		if _, err := Open(path, binding(sample())); !errors.Is(err, ErrNoSuperblock) {
			t.Errorf("%s: %v, want ErrNoSuperblock", name, err)
		}
		if p != nil && !bytes.Equal(content(t, path), p) {
			t.Errorf("%s: Open wrote", name)
		}
		if err := Create(path, sample()); err != nil {
			t.Errorf("Create where %s: %v", name, err)
		}
		if err := Create(path, sample()); !errors.Is(err, ErrExists) {
			t.Errorf("second Create: %v, want ErrExists", err)
		}
	}
}

func TestM58CutShortFileIsRepaired(t *testing.T) {
	for _, n := range []int{copySize, copySize + 1, copySize + 4000} {
		path := created(t)
		put(t, path, content(t, path)[:n])
		if f := open(t, path); len(f.Repaired()) != 1 || len(content(t, path)) != fileSize {
			t.Errorf("cut to %d bytes: repaired %q, now %d bytes", n, f.Repaired(), len(content(t, path)))
		}
	}
}

// faults.md M65: a newer format is refused, also when it is in one copy only, and nothing is written.
func TestM65NewerVersionIsRefusedUntouched(t *testing.T) {
	for _, copies := range [][]int{{0}, {1}, {0, 1}} {
		path := created(t)
		p := content(t, path)
		for _, i := range copies {
			one := p[i*copySize : (i+1)*copySize]
			binary.LittleEndian.PutUint32(one[offVersion:], Version+1)
			one[offRest] = 1 // it may hold what we do not know
			seal(one)
		}
		put(t, path, p)
		_, err := Open(path, binding(sample()))
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 4") || !strings.Contains(err.Error(), "up to 3") {
			t.Errorf("copies %v: %v, want ErrVersion with both versions", copies, err)
		}
		if !bytes.Equal(content(t, path), p) {
			t.Errorf("copies %v: written to", copies)
		}
	}
}

// Well-formed by checksum, and still nothing that this program writes.
func TestWhatNoProgramWritesIsRefusedByName(t *testing.T) {
	for field, change := range map[string]func(p []byte){
		"version":        func(p []byte) { clear(p[offVersion:offFlags]) },
		"flags":          func(p []byte) { p[offFlags+3] = 1 },
		"generation":     func(p []byte) { p[offGeneration] ^= 1 },
		"size":           func(p []byte) { p[offSize] = 1 },
		"node":           func(p []byte) { p[offNode+40] = 'x' },
		"reserved bytes": func(p []byte) { p[offRest+7] = 1 },
	} {
		t.Run(field, func(t *testing.T) {
			path := created(t)
			p := content(t, path)
			for i := range 2 {
				one := p[i*copySize : (i+1)*copySize]
				change(one)
				seal(one)
			}
			put(t, path, p)
			if _, err := Open(path, binding(sample())); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), field) {
				t.Errorf("%v; want ErrCorrupt naming %s", err, field)
			}
		})
	}
}

func TestStaleOrForeignOlderCopyIsReportedAndReplaced(t *testing.T) {
	for name, change := range map[string]func(*Superblock){
		"generation": func(sb *Superblock) { sb.Generation -= 4 }, // writes to that copy were lost
		"cluster id": func(sb *Superblock) { sb.ClusterID = id(0x99) },
	} {
		path := created(t)
		f := open(t, path)
		for range 6 {
			if err := f.Update(func(sb *Superblock) { sb.Epoch++ }); err != nil {
				t.Fatal(err)
			}
		}
		older := f.Get()
		older.Generation--
		change(&older)
		f.Close()
		p := content(t, path)
		copy(p[older.Generation%2*copySize:], encode(&older))
		put(t, path, p)
		again := open(t, path)
		if r := again.Repaired(); len(r) != 1 || !strings.Contains(r[0], name) {
			t.Errorf("%s: Repaired() = %q", name, r)
		}
		if again.Get().Epoch != f.Get().Epoch {
			t.Errorf("%s: epoch %d, want %d", name, again.Get().Epoch, f.Get().Epoch)
		}
	}
}

// Whatever the bytes, choosing is sober: no panic, and what is accepted is written back as it was read.
func FuzzSuperblock(f *testing.F) {
	p, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Add(p[:copySize])
	if p, err := os.ReadFile("testdata/superblock-v2.bin"); err == nil {
		f.Add(p)
	}
	f.Add(make([]byte, fileSize))
	f.Add([]byte{})
	for _, c := range flips {
		q := bytes.Clone(p)
		q[c.at] ^= 1
		seal(q[:copySize])
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		p = append([]byte(nil), p...)
		if len(p) >= copySize && p[0] == magic[0] {
			seal(p[:copySize]) // else the checksum hides everything behind it
		}
		c, err := choose(p)
		if err != nil {
			return
		}
		at := int(c.sb.Generation%2) * copySize
		stored := make([]byte, copySize)
		copy(stored, p[min(at, len(p)):])
		if !bytes.Equal(encode(c.sb), stored) {
			t.Errorf("accepted %+v, which encodes differently", c.sb)
		}
	})
}

func TestSizeShrinksWithAHigherNumberOnly(t *testing.T) {
	const block = 4096
	path := created(t)
	f := open(t, path)
	size := sample().Size
	for _, c := range []struct {
		what    string
		size    int64
		resized uint64
		refused bool
	}{
		{"growth without a number", size + block, 0, false},
		{"shrink without a number", size, 0, true},
		{"growth with a number", size + 2*block, 1, false},
		{"shrink with the same number", size, 1, true},
		{"the number falls", size + 2*block, 0, true},
		{"growth, and the number falls", size + 3*block, 0, true},
		{"shrink with a higher number", size - block, 4, false},
		{"growth with a lower number", size, 3, true},
	} {
		err := f.Update(func(sb *Superblock) { sb.Size, sb.Resized = c.size, c.resized })
		if errors.Is(err, ErrMismatch) != c.refused || !c.refused && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if sb, err := Read(path); err != nil || sb.Size != size-block || sb.Resized != 4 {
		t.Errorf("stored: %d bytes, number %d, %v", sb.Size, sb.Resized, err)
	}
	b := binding(sample())
	b.Size, b.Resized = size-block, 3
	if _, err := Open(path, b); !errors.Is(err, ErrMismatch) {
		t.Errorf("opened as of another number: %v", err)
	}
}

// A crash between the two copies leaves one of each size, and versions: the newer counts.
func TestCopiesOfTwoSizesAreTheNewerOne(t *testing.T) {
	path := created(t)
	f := open(t, path)
	if err := f.Update(func(sb *Superblock) { sb.Size, sb.Resized = 4096, 1 }); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b := binding(sample())
	b.Size, b.Resized = 4096, 1
	f, err := Open(path, b)
	if err != nil || len(f.Repaired()) != 1 {
		t.Fatalf("%v, repaired %v", err, f)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
