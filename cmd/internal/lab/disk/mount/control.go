package mount

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"hacluster/cmd/internal/lab/disk/unflushed"
)

// Serve answers on a control socket until ctx ends: one line per command, one line per answer, which begins with "ok" or
// "error".
//
//	eio|enospc|hang|lie [OP [GLOB]]     a fault; OP read, write, flush or *; GLOB of the path within the mount or of the name
//	slow|busy MS [OP [GLOB]]
//	rot OFF LEN [GLOB]                  bytes change in silence
//	go                                  ends all faults, lets go what hangs
//	powercut drop|random|torn SEED      after the users were killed
//	stats                               JSON follows the ok
func (m *Mount) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		conns.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				if _, err := fmt.Fprintln(c, m.answer(lines.Text())); err != nil {
					return
				}
			}
		})
	}
}

func (m *Mount) answer(line string) string {
	out, err := m.command(strings.Fields(line))
	if err != nil {
		return "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	b, err := json.Marshal(out)
	if err != nil {
		return "error " + err.Error()
	}
	return "ok " + string(b)
}

func (m *Mount) command(words []string) (any, error) {
	if len(words) == 0 {
		return nil, errors.New("an empty line is no command")
	}
	args := words[1:]
	switch words[0] {
	case "stats":
		return m.Stats(), nil
	case "go":
		return map[string]int{"released": m.Go()}, nil
	case "powercut":
		return m.powercut(args)
	case "rot":
		return m.rot(args)
	}
	f := Fault{Kind: Kind(words[0])}
	if f.Kind == Slow || f.Kind == Busy {
		ms, err := numbers(args, 1)
		if err != nil {
			return nil, fmt.Errorf("%s MS [OP [GLOB]]: %w", f.Kind, err)
		}
		f.Delay, args = time.Duration(ms[0])*time.Millisecond, args[1:]
	}
	if len(args) > 2 {
		return nil, fmt.Errorf("%d words after the fault, OP and GLOB are wanted", len(args))
	}
	if len(args) > 0 && args[0] != "*" {
		f.Op = Op(args[0])
	}
	if len(args) > 1 && args[1] != "*" {
		f.Glob = args[1]
	}
	return nil, m.Fault(f)
}

func (m *Mount) powercut(args []string) (any, error) {
	if len(args) != 2 {
		return nil, errors.New("powercut drop|random|torn SEED is wanted")
	}
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("seed %q: %w", args[1], err)
	}
	return m.PowerCut(unflushed.Mode(args[0]), seed)
}

func (m *Mount) rot(args []string) (any, error) {
	n, err := numbers(args, 2)
	if err != nil {
		return nil, fmt.Errorf("rot OFF LEN [GLOB]: %w", err)
	}
	glob := strings.Join(args[2:], " ")
	if n[1] > 1<<20 {
		return nil, fmt.Errorf("at most %d bytes rot at a time", 1<<20)
	}
	files, err := m.Rot(n[0], n[1], glob)
	if err == nil && files == 0 {
		err = fmt.Errorf("no file is called %q", glob)
	}
	return map[string]int{"files": files}, err
}

func numbers(words []string, count int) (out []int64, err error) {
	if len(words) < count {
		return nil, fmt.Errorf("%d numbers are wanted", count)
	}
	for _, w := range words[:count] {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is not a number from 0 on", w)
		}
		out = append(out, n)
	}
	return out, nil
}
