package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// Writer is what a Load needs of a client.
type Writer interface {
	WriteAt(p []byte, off int64) (int, error)
	WriteFUA(p []byte, off int64) (int, error)
	Flush() error
	Server() string // who answers at present
}

// Load writes stamped blocks to random places of a region and keeps a record of them. Each worker has a part of the
// region for itself and waits for each answer, so that writes to one block are sent one after the other.
type Load struct {
	Dev     Writer
	Record  *Recorder
	First   int64 // block
	Blocks  int64
	Workers int           // default 8
	Think   time.Duration // how long a worker rests after each answer; default 0
	Reads   io.ReaderAt   // if not nil, workers read parts of what they wrote back from it and judge that by the record
	// Acked, if not nil, is called after each acknowledgement, one at a time.
	Acked func(server string)

	mu  sync.Mutex // guards Record and seq
	seq uint64
}

// longestWrite is how many blocks one write has at most.
const longestWrite = 8

// Run writes until ctx ends, or until a write fails. Then every write that was sent has been answered.
func (l *Load) Run(ctx context.Context) error {
	if l.Workers == 0 {
		l.Workers = 8
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	share := l.Blocks / int64(l.Workers)
	if share < longestWrite {
		return fmt.Errorf("%d blocks are too few for %d workers", l.Blocks, l.Workers)
	}
	errs := make(chan error, l.Workers)
	var workers sync.WaitGroup
	for i := range l.Workers {
		workers.Go(func() {
			if err := l.work(ctx, l.First+int64(i)*share, share); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	workers.Wait()
	close(errs)
	return <-errs
}

func (l *Load) work(ctx context.Context, first, blocks int64) error {
	buf := make([]byte, longestWrite*StampSize)
	for n := 1; ctx.Err() == nil; n++ {
		count := 1 + rand.Int64N(longestWrite)
		if err := l.write(buf[:count*StampSize], first+rand.Int64N(blocks-count+1), n%16 == 0); err != nil {
			return err
		}
		if l.Reads != nil && n%2 == 0 {
			if err := l.readBack(buf[:count*StampSize], first+rand.Int64N(blocks-count+1)); err != nil {
				return err
			}
		}
		if n%64 == 0 {
			if err := l.Dev.Flush(); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
		}
		if l.Think > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(l.Think):
			}
		}
	}
	return nil
}

// readBack reads blocks that nobody writes meanwhile: they hold the last write, acknowledged or not.
func (l *Load) readBack(p []byte, block int64) error {
	if _, err := l.Reads.ReadAt(p, block*StampSize); err != nil {
		return fmt.Errorf("read %d blocks from block %d on: %w", len(p)/StampSize, block, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range int64(len(p) / StampSize) {
		b := p[i*StampSize:][:StampSize]
		if l.Record.blocks[block+i] == nil {
			continue // never written: what was there before the load is not its business
		}
		if loss, bad := l.Record.judge(block+i, b); bad {
			return fmt.Errorf("a read under load found %v", loss)
		}
	}
	return nil
}

// write sends one write and notes it before and after.
func (l *Load) write(p []byte, block int64, durable bool) error {
	count := int64(len(p) / StampSize)
	l.mu.Lock()
	l.seq++
	seq := l.seq
	err := l.Record.Begin(seq, block, count)
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("note write %d: %w", seq, err)
	}
	for i := range count {
		Stamp(p[i*StampSize:][:StampSize], block+i, seq)
	}
	send := l.Dev.WriteAt
	if durable {
		send = l.Dev.WriteFUA
	}
	if _, err := send(p, block*StampSize); err != nil {
		return fmt.Errorf("write %d, %d blocks from block %d on: %w", seq, count, block, err)
	}
	server := l.Dev.Server()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.Record.Acked(seq, server); err != nil {
		return fmt.Errorf("note the answer to write %d: %w", seq, err)
	}
	if l.Acked != nil {
		l.Acked(server)
	}
	return nil
}
