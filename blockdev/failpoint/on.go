//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Enabled tells whether this program was built with -tags failpoints.
const Enabled = true

var (
	ours   [count]atomic.Int64 // hits of this process
	shared []byte              // the file of counts, mapped; nil without
	target Point
	at     int64 // which hit of target is the last; 0: none
)

func init() {
	if err := arm(os.Getenv("HACLUSTER_FAILPOINT"), os.Getenv("HACLUSTER_FAILPOINT_HITS")); err != nil {
		fmt.Fprintln(os.Stderr, "fail points:", err)
		os.Exit(2)
	}
}

func arm(point, hits string) (err error) {
	if point != "" {
		name, n, _ := strings.Cut(point, ":")
		if target, err = Named(name); err != nil {
			return err
		}
		if at, err = strconv.ParseInt(n, 10, 64); err != nil || at < 1 {
			return fmt.Errorf("HACLUSTER_FAILPOINT=%s: NAME:N with N from 1 on is wanted", point)
		}
	}
	if hits == "" {
		return nil
	}
	f, err := os.OpenFile(hits, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(8 * int64(count)); err != nil {
		return err
	}
	shared, err = syscall.Mmap(int(f.Fd()), 0, 8*int(count), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	return err
}

var onHit atomic.Pointer[func(Point)]

// OnHit has f called at each hit, by whoever hits it, before it goes on: a test that has several nodes in one process cuts
// their power there. It is called from many goroutines; nil: nobody is called.
func OnHit(f func(Point)) {
	if f == nil {
		onHit.Store(nil)
		return
	}
	onHit.Store(&f)
}

// Hits is how often this process hit a point.
func Hits(p Point) int64 { return ours[p].Load() }

// Hit counts, and kills the process if this is the place.
func Hit(p Point) {
	n := ours[p].Add(1)
	if shared != nil {
		(*atomic.Uint64)(unsafe.Pointer(&shared[8*int(p)])).Add(1) // the map is aligned to a page
	}
	if f := onHit.Load(); f != nil {
		(*f)(p)
	}
	if p == target && n == at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it takes effect at once, and nothing more happens here
	}
}

// HitOne hits one of two points.
func HitOne(first bool, a, b Point) {
	if first {
		Hit(a)
	} else {
		Hit(b)
	}
}

// Often is how often something rare happens: as usual, or as often as crashing there demands.
func Often[T any](_, often T) T { return often }
