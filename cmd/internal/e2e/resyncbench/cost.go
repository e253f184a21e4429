package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// cost is what a daemon took of the machine. Unlike speed, it hardly depends on what else runs there.
type cost struct {
	processor time.Duration
	read      int64 // bytes, of disks
	wrote     int64 // likewise
}

func (c cost) add(o cost) cost {
	return cost{c.processor + o.processor, c.read + o.read, c.wrote + o.wrote}
}

func (c cost) less(o cost) cost {
	return cost{c.processor - o.processor, c.read - o.read, c.wrote - o.wrote}
}

// per is the cost of each of n things.
func (c cost) per(n float64) string {
	return fmt.Sprintf("%.0f µs of processor, %.0f bytes read, %.0f written", float64(c.processor.Microseconds())/n, float64(c.read)/n, float64(c.wrote)/n)
}

// costs is what the daemons of both replicas took since they were started, by the id of their processes.
func (b *bench) costs() (map[int]cost, error) {
	all := map[int]cost{}
	for _, n := range []string{b.primary, b.standby} {
		pid := b.Pid(n)
		c, err := costOf(pid)
		if err != nil {
			return nil, err
		}
		all[pid] = c
	}
	return all, nil
}

// spent is what they took together between two counts; a process that is new since, all that it has taken.
func spent(before, after map[int]cost) (sum cost) {
	for pid, c := range after {
		sum = sum.add(c.less(before[pid]))
	}
	return sum
}

// tick is the kernel's unit of processor time.
const tick = 10 * time.Millisecond

func costOf(pid int) (c cost, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return c, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, s := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return c, err
		}
		c.processor += time.Duration(n) * tick
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		switch name {
		case "read_bytes":
			c.read = n
		case "write_bytes":
			c.wrote = n
		}
	}
	return c, nil
}
