package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// ErrGone: the guard has ended, or hangs. What it held is being killed, or its leases end.
var ErrGone = errors.New("the guard of services has ended, or does not answer")

// Client is a daemon's connection to its guard. Its methods may be called concurrently.
type Client struct {
	// Found is what the guard held when we came.
	Found *Hello
	// Events are Ended and Taken; closed when the connection ends. Whoever does not read them loses the connection.
	Events chan Reply

	mu      sync.Mutex
	conn    net.Conn
	last    uint64
	waiting map[uint64]chan string // nil: the connection has ended
}

// Events that wait to be read, at most.
const maxEvents = 256

// Open connects to the guard of the folder, and starts one by the command when there is none.
func Open(ctx context.Context, dir string, command []string) (*Client, error) {
	began := false
	for {
		c, err := connect(ctx, dir)
		if err == nil && c.Found.Protocol == Protocol {
			return c, nil
		}
		if err == nil { // of another version: it ends what runs, which is started anew by ours
			_ = c.send(Request{Quit: true})
			c.Close()
		} else if !began {
			if err := spawn(command); err != nil {
				return nil, err
			}
			began = true
		}
		if !sleep(ctx, tickPause) {
			return nil, fmt.Errorf("the guard of services: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// spawn starts a guard that outlives us.
func spawn(command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr, cmd.Dir = os.Stderr, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the guard of services: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

func connect(ctx context.Context, dir string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", Socket(dir))
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, Events: make(chan Reply, maxEvents), waiting: map[uint64]chan string{}}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxMessage)
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	var r Reply
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &r) != nil || r.Hello == nil {
		conn.Close()
		return nil, ErrGone
	}
	_ = conn.SetReadDeadline(time.Time{})
	c.Found = r.Hello
	go c.read(lines)
	return c, nil
}

func (c *Client) read(lines *bufio.Scanner) {
	defer c.Close()
	defer close(c.Events)
	for lines.Scan() {
		var r Reply
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			return
		}
		if r.Done != nil {
			c.answer(*r.Done)
			continue
		}
		select {
		case c.Events <- r:
		default:
			return
		}
	}
}

func (c *Client) answer(d Done) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.waiting[d.ID]; w != nil {
		delete(c.waiting, d.ID)
		w <- d.Err
	}
}

// Close leaves the guard to itself. Operations that are outstanding end with ErrGone.
func (c *Client) Close() {
	_ = c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.waiting {
		close(w)
	}
	c.waiting = nil
}

func (c *Client) send(r Request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(b) >= maxMessage {
		return fmt.Errorf("a message of %d bytes to the guard: at most %d are allowed", len(b), maxMessage)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return ErrGone
	}
	return nil
}

// Lease tells until when services may run.
func (c *Client) Lease(l Lease) error { return c.send(Request{Lease: &l}) }

// Do carries an operation out and waits for its end. The guard bounds it; when ctx ends nobody waits any more.
func (c *Client) Do(ctx context.Context, d Do) error {
	w := make(chan string, 1)
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return ErrGone
	}
	c.last++
	d.ID = c.last
	c.waiting[d.ID] = w
	c.mu.Unlock()
	if err := c.send(Request{Do: &d}); err != nil {
		return err
	}
	select {
	case e, ok := <-w:
		switch {
		case !ok:
			return ErrGone
		case e != "":
			return errors.New(e)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
