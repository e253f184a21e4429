package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"hacluster/cmd/internal/lab/disk"
	"hacluster/cmd/internal/lab/topology"
)

func powercut(_ context.Context, c *call) error {
	if len(c.words) == 1 {
		c.words = append(c.words, strconv.FormatUint(rand.Uint64(), 10))
	}
	if err := c.want("NODE", "SEED"); err != nil {
		return err
	}
	seed, err := strconv.ParseUint(c.words[1], 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %q is no seed: a number is wanted", errUsage, c.words[1])
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	lost, err := l.PowerCut(disk.Mode(c.mode), seed, c.words[0])
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s is off, %d unflushed writes are lost (%s, seed %d); lab start %s boots it\n", c.words[0], lost, c.mode, seed, c.words[0])
	return nil
}

func harm(_ context.Context, c *call) error {
	if err := c.want("NODE", "PART", "FAULT..."); err != nil {
		return err
	}
	glob, err := topology.DiskGlob(c.words[1])
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	d, err := l.Disk(c.words[0])
	if err != nil {
		return err
	}
	f := disk.Fault{Op: disk.Op(c.op), Glob: glob}
	switch words := c.words[2:]; {
	case words[0] == "go":
		return d.Go()
	case words[0] == "rot" && len(words) == 3:
		return rot(c, d, glob)
	case (words[0] == string(disk.Slow) || words[0] == string(disk.Busy)) && len(words) == 2:
		millis, err := c.number(3, "ms")
		if err != nil {
			return err
		}
		f.Kind, f.Delay = disk.Kind(words[0]), time.Duration(millis)*time.Millisecond
	case len(words) == 1:
		f.Kind = disk.Kind(words[0]) // the disk says which it knows
	default:
		return fmt.Errorf("%w: %q", errUsage, strings.Join(words, " "))
	}
	return d.Fault(f)
}

func rot(c *call, d *disk.Control, glob string) error {
	off, err := c.number(3, "bytes")
	if err != nil {
		return err
	}
	length, err := c.number(4, "bytes")
	if err != nil {
		return err
	}
	return d.RotAt(int64(off), int64(length), glob)
}
