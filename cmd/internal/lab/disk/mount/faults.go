package mount

import (
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Kind of a fault.
type Kind string

// The faults that a disk may have.
const (
	EIO    Kind = "eio"
	ENOSPC Kind = "enospc"
	Slow   Kind = "slow" // each operation waits
	Busy   Kind = "busy" // the same, one after the other: so many operations a second, however many there are
	Hang   Kind = "hang" // until released
	Lie    Kind = "lie"  // a flush says that it succeeded and makes nothing durable
	Rot    Kind = "rot"
)

// Op is what a fault strikes.
type Op string

// Operations: Write stands for everything that changes content or names, Flush for fsync of files and directories and
// for durable writes (O_DSYNC, RWF_DSYNC), which Write strikes as well.
const (
	Read  Op = "read"
	Write Op = "write"
	Flush Op = "flush"
)

// Fault is one that is in force.
type Fault struct {
	Kind  Kind
	Op    Op            // "": each
	Glob  string        // of the path within the mount, or of its last element; "": each
	Delay time.Duration // of Slow and Busy
}

func (f Fault) String() string {
	return fmt.Sprintf("%s %s %s", f.Kind, or(string(f.Op), "*"), or(f.Glob, "*"))
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func (f Fault) validate() error {
	switch f.Kind {
	case EIO, Hang, Lie, Slow, Busy:
	case ENOSPC:
		if f.Op == Read || f.Op == Flush {
			return errors.New("only a write fails for want of space")
		}
	default:
		return fmt.Errorf("fault %q is none of eio, enospc, slow, busy, hang, lie, rot", f.Kind)
	}
	switch f.Op {
	case "", Read, Write, Flush:
	default:
		return fmt.Errorf("operation %q is none of read, write, flush", f.Op)
	}
	_, err := path.Match(f.Glob, "/x")
	return err
}

func (f Fault) strikes(op Op, where string) bool {
	if f.Op != "" && f.Op != op || f.Kind == Lie && op != Flush || f.Kind == ENOSPC && op != Write {
		return false
	}
	if f.Glob == "" {
		return true
	}
	whole, _ := path.Match(f.Glob, where)
	last, _ := path.Match(f.Glob, path.Base(where))
	return whole || last
}

// faults decides what happens to each operation.
type faults struct {
	any atomic.Bool // fast way out

	mu      sync.Mutex
	list    []Fault
	release chan struct{} // closed to let go what hangs
	dead    bool          // what hung fails when it is let go
	bites   map[Kind]int64
	hanging int

	busyUntil time.Time // when all that waits for its turn is over
}

func newFaults() *faults {
	return &faults{release: make(chan struct{}), bites: map[Kind]int64{}}
}

func (f *faults) add(n Fault) error {
	if err := n.validate(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, n)
	f.any.Store(true)
	return nil
}

// clear ends all faults and lets go what hangs: it is carried out, or fails if the power goes.
func (f *faults) clear(powerGoes bool) (released int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list, f.dead = nil, powerGoes
	f.any.Store(false)
	close(f.release)
	f.release = make(chan struct{})
	return f.hanging
}

// verdict is what becomes of an operation.
type verdict struct {
	err error
	lie bool
}

// strike waits and fails as the faults in force demand.
func (f *faults) strike(where func() string, ops ...Op) (v verdict) {
	if !f.any.Load() {
		return v
	}
	at := where()
	for _, op := range ops {
		for _, n := range f.matching(op, at) {
			switch n.Kind {
			case EIO:
				v.err = unix.EIO
			case ENOSPC:
				v.err = unix.ENOSPC
			case Lie:
				v.lie = true
			case Slow:
				time.Sleep(n.Delay)
			case Busy:
				time.Sleep(time.Until(f.turn(n.Delay)))
			case Hang:
				if err := f.hang(); err != nil {
					v.err = err
				}
			}
		}
	}
	return v
}

func (f *faults) matching(op Op, where string) (out []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.list {
		if n.strikes(op, where) {
			f.bites[n.Kind]++
			out = append(out, n)
		}
	}
	return out
}

// turn is when an operation of a busy disk is over: behind all that were there before.
func (f *faults) turn(takes time.Duration) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.busyUntil.Before(now) {
		f.busyUntil = now
	}
	f.busyUntil = f.busyUntil.Add(takes)
	return f.busyUntil
}

func (f *faults) hang() error {
	f.mu.Lock()
	release := f.release
	f.hanging++
	f.mu.Unlock()
	<-release
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hanging--
	if f.dead {
		return unix.EIO
	}
	return nil
}
