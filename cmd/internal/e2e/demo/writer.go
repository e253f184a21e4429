package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

// writerOptions make this program a writer: a process of its own that is told nothing of what is done to the cluster.
type writerOptions struct {
	record, uris  string
	first, blocks int64
}

func (o *writerOptions) flags() {
	flag.StringVar(&o.record, "write-record", "", "internal: be the writer, and note in this `file` what was acknowledged")
	flag.StringVar(&o.uris, "write-to", "", "internal: where the writer finds the volume")
	flag.Int64Var(&o.first, "write-first", 0, "internal: the first block that it writes")
	flag.Int64Var(&o.blocks, "write-blocks", 0, "internal: how many")
}

// answerLimit is how long the writer waits for an answer: much longer than any failover takes, and not so long that a
// writer whose cluster and parent were killed stays around.
const answerLimit = 20 * time.Second

// write is the writer: it writes until its standard input ends, and then prints what it saw.
func write(ctx context.Context, o writerOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	quiet := slog.New(slog.DiscardHandler)
	dev, err := nbdclient.Open(ctx, strings.Split(o.uris, ","), nbdclient.ReconnectConfig{Limit: answerLimit, Log: quiet})
	if err != nil {
		return err
	}
	defer dev.Close()
	rec, err := e2e.NewRecorder(o.record)
	if err != nil {
		return err
	}
	l := &e2e.Load{Dev: dev, Record: rec, First: o.first, Blocks: o.blocks, Think: time.Millisecond}
	if err := errors.Join(l.Run(ctx), rec.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(dev.Stats())
}

// writerProc is a writer that runs.
type writerProc struct {
	cmd       *exec.Cmd
	end       io.Closer // its standard input
	out, errs bytes.Buffer
	done      chan struct{}
	err       error
}

func startWriter(o writerOptions) (*writerProc, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &writerProc{done: make(chan struct{})}
	w.cmd = exec.Command(self, "-write-record", o.record, "-write-to", o.uris,
		"-write-first", fmt.Sprint(o.first), "-write-blocks", fmt.Sprint(o.blocks))
	w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.errs
	if w.end, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		w.err = w.cmd.Wait()
		close(w.done)
	}()
	return w, nil
}

// finish lets the writer have its last answers and returns what it saw.
func (w *writerProc) finish(ctx context.Context) (s nbdclient.Stats, err error) {
	w.end.Close()
	select {
	case <-w.done:
	case <-ctx.Done():
		return s, fmt.Errorf("the writer does not end: %w", ctx.Err())
	}
	if w.err != nil {
		return s, fmt.Errorf("the writer: %w: %s", w.err, strings.TrimSpace(w.errs.String()))
	}
	return s, json.Unmarshal(w.out.Bytes(), &s)
}

// stop ends a writer that may still run.
func (w *writerProc) stop() {
	if w == nil {
		return
	}
	w.end.Close()
	_ = w.cmd.Process.Kill() // it may have ended already
	<-w.done
}
