package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"hacluster/cmd/internal/e2e"
)

// look is what one daemon did in a while.
type look struct {
	node, part string  // part: what it was in the cluster
	core       float64 // percent of one
	switches   float64 // of its threads, a second
	calls      float64 // to the system, a second; below 0: unknown
}

// used is what a process has used since its start.
type used struct {
	cpu      time.Duration
	switches int
}

// lookAt watches all three daemons at once, for the time given, and then counts their calls for a quarter of it.
func lookAt(ctx context.Context, c *e2e.Cluster, d time.Duration) ([]look, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	if !e2e.Healthy(st) {
		return nil, errors.New("the volume is not healthy any more")
	}
	before := map[string]used{}
	for _, n := range e2e.Nodes {
		if before[n], err = usedBy(c.Pid(n)); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d):
	}
	passed := time.Since(began)
	var looks []look
	for _, n := range e2e.Nodes {
		u, err := usedBy(c.Pid(n))
		if err != nil {
			return nil, err
		}
		looks = append(looks, look{node: n, part: part(n, st.Leader, st.Volumes[0].Primary), calls: -1,
			core:     100 * (u.cpu - before[n].cpu).Seconds() / passed.Seconds(),
			switches: float64(u.switches-before[n].switches) / passed.Seconds()})
	}
	for i, n := range e2e.Nodes {
		looks[i].calls = callsOf(ctx, c.Pid(n), d/4)
	}
	return looks, nil
}

func part(node, leader, primary string) string {
	p := "standby"
	switch node {
	case primary:
		p = "primary"
	case e2e.Nodes[len(e2e.Nodes)-1]:
		p = "witness"
	}
	if node == leader {
		p += ", leader"
	}
	return p
}

// usedBy adds up a process's threads. Those that have ended are missing; a daemon's stay.
func usedBy(pid int) (u used, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return u, fmt.Errorf("process %d has no threads: %w", pid, errors.Join(err, os.ErrNotExist))
	}
	for _, t := range tasks {
		sched, err := os.ReadFile(filepath.Join(t, "schedstat"))
		if err != nil {
			return u, err
		}
		status, err := os.ReadFile(filepath.Join(t, "status"))
		if err != nil {
			return u, err
		}
		ns, err := strconv.ParseInt(string(bytes.Fields(sched)[0]), 10, 64)
		if err != nil {
			return u, fmt.Errorf("%s/schedstat: %w", t, err)
		}
		u.cpu += time.Duration(ns)
		for _, m := range switched.FindAllSubmatch(status, -1) {
			n, _ := strconv.Atoi(string(m[1])) // the expression lets only digits through
			u.switches += n
		}
	}
	return u, nil
}

var switched = regexp.MustCompile(`voluntary_ctxt_switches:\s+(\d+)`)

var counted = regexp.MustCompile(`(?m)^(\d+),[^,]*,raw_syscalls:sys_enter,`)

// callsOf asks perf, which slows each call down: that time is not part of the other figures.
func callsOf(ctx context.Context, pid int, d time.Duration) float64 {
	out, err := exec.CommandContext(ctx, "perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", strconv.Itoa(pid),
		"sleep", fmt.Sprintf("%.3f", d.Seconds())).CombinedOutput()
	m := counted.FindSubmatch(out)
	if err != nil || m == nil {
		return -1 // not there, or not allowed
	}
	n, _ := strconv.Atoi(string(m[1]))
	return float64(n) / d.Seconds()
}
