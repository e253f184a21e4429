package client

import (
	"context"
	"fmt"
	"slices"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/cmd/internal/lab/history"
)

// ReadAll reads every register once, through whichever server serves, and adds that to the record: what was
// acknowledged and is lost shows at the latest here.
func (c *Client) ReadAll(ctx context.Context) error {
	left := c.Registers()
	w := &worker{c: c, name: "final", servers: c.cfg.Servers, silence: c.cfg.Silence}
	defer func() {
		if w.conn != nil {
			w.leave()
		}
	}()
	for len(left) > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("%d registers could not be read in the end: %w", len(left), ctx.Err())
		}
		if w.conn == nil && !w.dial(ctx) {
			pause(ctx, dialPause)
			continue
		}
		if w.readOne(ctx, left[0]) {
			left = left[1:]
		}
	}
	return nil
}

func (w *worker) readOne(ctx context.Context, block int64) bool {
	buf := make([]byte, BlockSize)
	o := history.Op{Who: w.name, Kind: history.Read, Server: w.server.Node, Block: block, Sent: w.c.cfg.Clock()}
	err := w.wait(ctx, w.conn.Start(nbdclient.Op{Cmd: nbdproto.CmdRead, Range: blockdev.Range{Off: block * BlockSize, Len: BlockSize}, Data: buf}))
	o.Answered = w.c.cfg.Clock()
	w.settle(o, buf, err)
	return err == nil
}

// fillAtOnce is how many blocks one request fills: one by one, thousands take minutes on a busy machine.
const fillAtOnce = 16

// Fill writes n blocks beside the registers, so that a resync has something to do.
func (c *Client) Fill(ctx context.Context, n int64) error {
	w := &worker{c: c, name: "filler", servers: c.cfg.Servers, silence: c.cfg.Silence}
	defer func() {
		if w.conn != nil {
			w.leave()
		}
	}()
	taken := c.Registers()
	for block := c.cfg.First; n > 0; {
		if ctx.Err() != nil {
			return fmt.Errorf("%d blocks could not be filled: %w", n, ctx.Err())
		}
		if w.conn == nil && !w.dial(ctx) {
			pause(ctx, dialPause)
			continue
		}
		if slices.Contains(taken, block) {
			block++
			continue
		}
		run := int64(1)
		for run < min(n, fillAtOnce) && !slices.Contains(taken, block+run) {
			run++
		}
		buf := make([]byte, run*BlockSize)
		for i := range run {
			stamp(buf[i*BlockSize:][:BlockSize], history.Op{Who: w.name, Block: block + i, Seq: c.nextSeq(), Sent: c.cfg.Clock()})
		}
		err := w.wait(ctx, w.conn.Start(nbdclient.Op{Cmd: nbdproto.CmdWrite, Range: blockdev.Range{Off: block * BlockSize, Len: run * BlockSize}, Data: buf}))
		if err != nil {
			w.leave()
			continue
		}
		block += run
		n -= run
	}
	return nil
}
