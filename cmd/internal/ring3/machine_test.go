package ring3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing/synctest"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/node"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/membership"
)

// machine is one server: it outlives its processes.
type machine struct {
	c    *world
	name string
	disk *disk
	boot [16]byte
	dirs int // data directories made: each crash makes one

	node *node.Node // nil while no process runs
	proc *process
	past sync.WaitGroup // processes that were cut off and end by themselves
}

// process is one run of the daemon.
type process struct {
	host  *host
	links *links
	dir   string
	stop  context.CancelFunc
	done  chan struct{} // closed when Run has returned
	err   error         // of Run
}

func (m *machine) start() error {
	if m.proc == nil {
		m.proc = &process{dir: m.dir()}
	}
	dir := m.proc.dir
	cfg, err := config.Load(m.c.file, config.Options{Node: m.name, Insecure: true, DataDir: dir})
	if err != nil {
		return err
	}
	m.c.net.boot(m.name)
	h := m.c.net.host(m.name)
	p := &process{host: h, links: &links{net: m.c.gossip}, dir: dir, done: make(chan struct{})}
	n, err := node.New(cfg, m.c.log.With("at", m.name, "process", m.dirs), node.Env{Now: m.c.now, Boot: m.boot, Network: h, Links: p.links, Disks: m.disk})
	if err != nil {
		h.kill(false)
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	m.node, m.proc = n, p
	go func() {
		defer close(p.done)
		p.err = n.Run(ctx)
	}()
	return nil
}

func (m *machine) dir() string { return filepath.Join(m.c.dir, fmt.Sprintf("%s.%d", m.name, m.dirs)) }

// shut ends the process in order.
func (m *machine) shut() error {
	if m.node == nil {
		return nil
	}
	m.proc.stop()
	<-m.proc.done
	m.proc.host.kill(false)
	m.node = nil
	return m.proc.err
}

// crash ends the process, or takes the machine's power, at a moment at which everything waits.
func (m *machine) crash(power bool) error {
	w := m.c
	if m.node == nil {
		return nil
	}
	if power && w.volatile && m.name != "gamma" && !w.whole {
		w.tell("%s keeps its power: it may be the only one with what nobody flushed", m.name)
		power = false
	}
	w.whole = false
	synctest.Wait()
	old := m.proc
	m.dirs++
	dir := m.dir()
	if err := copyDir(dir, old.dir); err != nil {
		return err
	}
	old.host.kill(power)
	old.links.kill()
	m.disk.crash(power, m.c.rnd)
	if power {
		for i := range m.boot {
			m.boot[i] = byte(m.c.rnd.Uint32())
		}
	}
	m.node, m.proc = nil, &process{dir: dir}
	old.stop()
	m.past.Go(func() {
		<-old.done
		os.RemoveAll(old.dir)
	})
	return nil
}

// copyDir clones a data directory. Sockets are no part of it here.
func copyDir(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(from, path)
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), b, 0o600)
	})
}

// links are one process's ends of the gossip's cables.
type links struct {
	net *membership.Memory

	mu   sync.Mutex
	dead bool
	open []membership.Link
}

func (l *links) Open(addr netip.AddrPort) (membership.Link, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return nil, errors.Join(syscall.ENETDOWN)
	}
	k, err := l.net.Open(addr)
	if err == nil {
		l.open = append(l.open, k)
	}
	return k, err
}

func (l *links) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, k := range l.open {
		k.Close()
	}
}

// now is every machine's CLOCK_BOOTTIME.
func (w *world) now() cluster.Instant { return cluster.Instant(w.clock()) }

func (w *world) clock() time.Duration { return time.Hour + time.Since(w.began) }
