package blockdev

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func at(p []byte) uintptr { return uintptr(unsafe.Pointer(&p[0])) }

func TestBuffersAreAlignedAndApart(t *testing.T) {
	type taken struct {
		b    *Buf
		mark byte
	}
	var all []taken
	for i := range 7 {
		for _, n := range []int{1, 4096, 4097, 64 << 10, 256 << 10, 256<<10 + 1, 1 << 20, 1<<20 + 1, 4 << 20} {
			b := NewBuf(n)
			if len(b.Bytes()) != n || at(b.Bytes())%BlockSize != 0 {
				t.Fatalf("a buffer of %d bytes has %d and begins at %#x", n, len(b.Bytes()), at(b.Bytes()))
			}
			mark := byte(len(all) + i)
			for j := range b.whole {
				b.whole[j] = mark
			}
			all = append(all, taken{b, mark})
		}
	}
	for _, x := range all {
		if slices.ContainsFunc(x.b.whole, func(c byte) bool { return c != x.mark }) {
			t.Fatalf("a buffer of %d bytes shares memory with another", len(x.b.Bytes()))
		}
		x.b.Free()
	}
}

// What a kernel makes of the advice is its affair, that it was given is ours: "hg" of the mapping that a buffer lies in.
func TestLargeBuffersAreOfHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil {
		t.Skip("a kernel without transparent huge pages: ", err)
	}
	for _, n := range []int{512 << 10, 1 << 20, 2 << 20, 32 << 20} {
		b := NewBuf(n)
		clear(b.Bytes())
		if at(b.Bytes())/hugePage != (at(b.Bytes())+uintptr(min(n, hugePage))-1)/hugePage {
			t.Errorf("a buffer of %d bytes at %#x lies across huge pages", n, at(b.Bytes()))
		}
		if flags := flagsOf(t, at(b.Bytes())); !slices.Contains(flags, "hg") {
			t.Errorf("the memory of a buffer of %d bytes is not of huge pages where it can be: flags %v", n, flags)
		}
		b.Free()
	}
}

// flagsOf are the flags of the mapping of an address (VmFlags of proc_pid_smaps(5)).
func flagsOf(t *testing.T, addr uintptr) (flags []string) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	within := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			within = from <= addr && addr < to
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && within {
			return strings.Fields(rest)
		}
	}
	t.Fatalf("no mapping holds %#x", addr)
	return nil
}

// Limits of memory count what is held of buffers; what that keeps of memory is no more than some times as much, whatever was used
// beside it meanwhile (R28).
func TestHeldBuffersKeepLittleElse(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var held []*Buf
	for range 32 {
		var burst []*Buf
		for range 48 {
			burst = append(burst, NewBuf(512<<10))
		}
		held = append(held, burst[0])
		for _, b := range burst[1:] {
			b.Free()
		}
		runtime.GC()
		runtime.GC() // two of them empty a sync.Pool
	}
	runtime.ReadMemStats(&after)
	// of what the heap counts, half has no memory behind it: where huge pages begin is not where the heap's objects do
	if kept, counts := int64(after.HeapAlloc-before.HeapAlloc)/2, int64(len(held))*(512<<10); kept > 5*counts {
		t.Errorf("buffers of %d bytes keep %d", counts, kept)
	}
	for _, b := range held {
		b.Free()
	}
}

func BenchmarkNewBuf(b *testing.B) {
	for _, n := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				NewBuf(n).Free()
			}
		})
	}
}
