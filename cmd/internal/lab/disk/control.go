package disk

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"hacluster/cmd/internal/lab/disk/mount"
	"hacluster/cmd/internal/lab/disk/unflushed"
)

// What a disk can be told, and tells.
type (
	Fault = mount.Fault
	Kind  = mount.Kind
	Op    = mount.Op
	Mode  = unflushed.Mode
	Cut   = unflushed.Cut
	Stats = mount.Stats
)

// The faults, operations and ways of losing power.
const (
	EIO, ENOSPC, Slow, Busy, Hang, Lie, Rot = mount.EIO, mount.ENOSPC, mount.Slow, mount.Busy, mount.Hang, mount.Lie, mount.Rot
	Read, Write, Flush                      = mount.Read, mount.Write, mount.Flush
	Drop, Random, Torn                      = unflushed.Drop, unflushed.Random, unflushed.Torn
)

// Supported says why a disk is not possible here; nil: it is.
func Supported() error { return mount.Supported() }

// Control speaks to the control socket of a disk. Each command has a connection of its own, so it may be used
// concurrently.
type Control struct{ path string }

// At is the control of a disk whose socket is known.
func At(socket string) *Control { return &Control{path: socket} }

// answering bounds a command: a power cut waits for the files to be closed.
const answering = 30 * time.Second

// Command sends one line and decodes the answer into out, which may be nil.
func (c *Control) Command(out any, format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	conn, err := net.DialTimeout("unix", c.path, answering)
	if err != nil {
		return fmt.Errorf("disk %s: %w", line, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answering)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return fmt.Errorf("disk %s: %w", line, err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("disk %s: %w", line, err)
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(answer), " ")
	if word != "ok" {
		return fmt.Errorf("disk %s: %w", line, errors.New(rest))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal([]byte(rest), out)
}

// Fault puts a fault in force, until Go or PowerCut.
func (c *Control) Fault(f Fault) error {
	word := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	if f.Kind == Slow || f.Kind == Busy {
		return c.Command(nil, "%s %d %s %s", f.Kind, f.Delay.Milliseconds(), word(string(f.Op)), word(f.Glob))
	}
	return c.Command(nil, "%s %s %s", f.Kind, word(string(f.Op)), word(f.Glob))
}

// RotAt changes bytes of the files that the pattern names, in silence.
func (c *Control) RotAt(off, length int64, glob string) error {
	return c.Command(nil, "rot %d %d %s", off, length, glob)
}

// Go ends all faults and lets go what hangs.
func (c *Control) Go() error { return c.Command(nil, "go") }

// PowerCut loses what was not flushed. Who used the disk must have been killed: it waits a while for the kernel to close
// their files. All faults end.
func (c *Control) PowerCut(mode Mode, seed uint64) (cut Cut, err error) {
	err = c.Command(&cut, "powercut %s %d", mode, seed)
	return cut, err
}

// Stats tells what the disk has done and how often each fault bit.
func (c *Control) Stats() (s Stats, err error) {
	err = c.Command(&s, "stats")
	return s, err
}

// Bites is how often a kind of fault bit.
func (c *Control) Bites(k mount.Kind) (int64, error) {
	s, err := c.Stats()
	return s.Bites[string(k)], err
}
