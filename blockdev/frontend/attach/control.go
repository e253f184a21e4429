package attach

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// What a Server may be asked.
const (
	DoStatus  = "status"
	DoUsers   = "users" // status, and who uses the device
	DoRelease = "release"
	DoAbandon = "abandon"
	DoResize  = "resize"
)

// Request is one question to a Server.
type Request struct {
	Do  string `json:"do"`
	Why string `json:"why,omitempty"` // for the log, and for who gets errors
}

// Reply is the answer.
type Reply struct {
	PID       int      `json:"pid"`
	Device    string   `json:"device"` // such as /dev/loop3
	Size      int64    `json:"size"`   // of the device
	ID        string   `json:"id"`     // of the volume; empty: a Server of an earlier version
	Epoch     uint64   `json:"epoch"`  // in which it was last connected
	Connected bool     `json:"connected"`
	Users     []string `json:"users,omitempty"`
	Busy      bool     `json:"busy,omitempty"` // it is in use, so it was not let go
	Error     string   `json:"error,omitempty"`
}

// The bounds of a conversation: one question and one answer.
const (
	maxMessage   = 64 << 10
	conversation = 20 * time.Second
)

// Ask puts a question to the volume's Server.
func (p Place) Ask(ctx context.Context, r Request) (*Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, conversation)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "unix", p.control())
	if err != nil {
		return nil, fmt.Errorf("ask the server process of %s: %w", p.Link(), err)
	}
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	defer nc.Close()
	var out Reply
	err = json.NewEncoder(nc).Encode(r)
	if err == nil {
		err = json.NewDecoder(io.LimitReader(nc, maxMessage)).Decode(&out)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the server process of %s for %q: %w", p.Link(), r.Do, err)
	}
	if out.Error != "" {
		return &out, fmt.Errorf("server process of %s: %s", p.Link(), out.Error)
	}
	return &out, nil
}

// answer serves one conversation after the other until the listener is closed: who asks is the daemon.
func answer(ln net.Listener, do func(Request) Reply) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		_ = nc.SetDeadline(time.Now().Add(conversation))
		var r Request
		if err := json.NewDecoder(io.LimitReader(nc, maxMessage)).Decode(&r); err == nil {
			_ = json.NewEncoder(nc).Encode(do(r))
		}
		nc.Close()
	}
}
