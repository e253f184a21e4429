package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/cmd/internal/lab/history"
)

const (
	dialLimit   = 600 * time.Millisecond // a server that is cut off answers nothing
	dialPause   = 20 * time.Millisecond
	lookPause   = 100 * time.Millisecond
	lookSilence = 200 * time.Millisecond
	probePause  = 200 * time.Millisecond // a standby refuses a probe each time: not so often that it costs
)

// worker has one connection and one operation under way at a time.
type worker struct {
	c       *Client
	name    string
	servers []Server
	own     []int64       // blocks that it writes; none: it reads
	mixed   bool          // it reads, too
	reads   []int64       // blocks that it reads; none: all registers
	silence time.Duration // 0: it stays with a connection until that dies

	conn   *nbdclient.Client
	server Server
	next   int
}

func (w *worker) run(ctx context.Context) {
	defer func() {
		if w.conn != nil {
			w.conn.Abort()
			<-w.conn.Lost()
		}
	}()
	for ctx.Err() == nil {
		if w.conn == nil && !w.dial(ctx) {
			pause(ctx, w.pauseAfterRefusal())
			continue
		}
		if !w.c.pausing.begin(ctx) {
			return
		}
		w.operate(ctx)
		w.c.pausing.end()
		pause(ctx, w.c.cfg.Think)
	}
}

func (w *worker) pauseAfterRefusal() time.Duration {
	switch {
	case len(w.reads) > 0:
		return lookPause
	case w.silence == 0:
		return probePause
	}
	return dialPause
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (w *worker) dial(ctx context.Context) bool {
	s := w.servers[w.next%len(w.servers)]
	w.next++
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := nbdclient.Config{TLS: w.c.cfg.TLS, Window: 1, Connect: w.c.cfg.Connect}.Dial(ctx, s.URI)
	if err != nil {
		return false // a standby, or nobody: the next one
	}
	w.conn, w.server = conn, s
	w.c.mu.Lock()
	w.c.dials++
	w.c.mu.Unlock()
	return true
}

// leave gives the connection up; what was under way on it is unknown.
func (w *worker) leave() {
	w.conn.Abort()
	<-w.conn.Lost()
	w.conn = nil
}

func (w *worker) operate(ctx context.Context) {
	o := history.Op{Who: w.name, Kind: history.Read, Server: w.server.Node}
	buf := make([]byte, BlockSize)
	op := nbdclient.Op{Cmd: nbdproto.CmdRead, Data: buf}
	if len(w.own) > 0 && (!w.mixed || rand.IntN(2) == 0) {
		o.Kind, o.Seq, o.Block = history.Write, w.c.nextSeq(), w.own[rand.IntN(len(w.own))]
		op.Cmd = nbdproto.CmdWrite
		if w.c.cfg.FUA {
			op.Flags = nbdproto.CmdFUA
		}
	} else {
		all := w.reads
		if len(all) == 0 {
			all = w.c.Registers()
		}
		o.Block = all[rand.IntN(len(all))]
	}
	op.Range = blockdev.Range{Off: o.Block * BlockSize, Len: BlockSize}
	o.Sent = w.c.cfg.Clock()
	if o.Kind == history.Write {
		stamp(buf, o)
		w.c.sends(o)
	}
	err := w.wait(ctx, w.conn.Start(op))
	o.Answered = w.c.cfg.Clock()
	w.settle(o, buf, err)
}

// wait waits for the answer; after Silence, or when the run ends, the connection is left and the answer never came.
func (w *worker) wait(ctx context.Context, k *nbdclient.Call) error {
	limit := w.silence
	if limit == 0 {
		select {
		case <-k.Done():
			return k.Wait()
		case <-ctx.Done():
			limit = w.c.cfg.Silence
		}
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-k.Done():
	case <-t.C:
		w.conn.Abort()
	}
	return k.Wait()
}

// settle writes down what came of an operation.
func (w *worker) settle(o history.Op, buf []byte, err error) {
	var refused *nbdclient.OpError
	switch {
	case err == nil && o.Kind == history.Read:
		seq, err := ReadStamp(buf, o.Block)
		if err != nil {
			w.c.noteBroken(fmt.Sprintf("%v holds %v", o, err))
			return
		}
		o.Seq = seq
	case err == nil:
	case errors.As(err, &refused):
		w.c.noteError(refused.Errno.Error())
		o.Unknown, o.Answered = true, 0
	default:
		o.Unknown, o.Answered = true, 0
		w.leave()
	}
	w.c.note(o)
}
