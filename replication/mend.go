package replication

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
	"hacluster/replication/wire"
)

// What the primary cannot read of its own disk is read at a member, answers the client, and is written here anew
// (primary/mend.go decides, and says why that is the right content). A disk that does not take it has failed (R23).

// maxMends is how many pieces of one read may be mended; a disk that cannot read more of it is given up.
const maxMends = 16

// mendable reports whether a read failed for what the disk holds.
func mendable(err error) bool {
	return err != nil && !errors.Is(err, blockdev.ErrClosed) && !errors.Is(err, blockdev.ErrRange)
}

// readPieces reads again, piece by piece, what could not be read as a whole, and returns the pieces that cannot be read, in
// whole blocks. None, with an error: it is not worth to ask others.
func (t *Tenure) readPieces(o *op) (bad []blockdev.Range, err error) {
	b := o.req.Buf.Bytes()
	for at := o.Range.Off; at < o.Range.End(); {
		end := min(at/wire.MaxRead*wire.MaxRead+wire.MaxRead, o.Range.End())
		if _, e := t.r.dev.ReadAt(b[at-o.Range.Off:end-o.Range.Off], at); e != nil {
			err = e
			if !mendable(e) || len(bad) == maxMends {
				return nil, e
			}
			bad = append(bad, t.r.wholeBlocks(at, end))
		}
		at = end
	}
	return bad, err
}

func (r *Replica) wholeBlocks(from, to int64) blockdev.Range {
	from = from / blockdev.BlockSize * blockdev.BlockSize
	to = min((to+blockdev.BlockSize-1)/blockdev.BlockSize*blockdev.BlockSize, r.cfg.Volume.Size)
	return blockdev.Range{Off: from, Len: to - from}
}

// mends makes an operation for each piece of a read that failed.
func (t *Tenure) mends(read *op, bad []blockdev.Range) (all []*primary.Op) {
	for _, at := range bad {
		m := t.newOp(blockdev.OpWrite, at)
		m.reader = read
		all = append(all, &m.Op)
	}
	return all
}

// readReplyLocked takes what a member read for us. It reaches the client's memory before the operation is complete, for
// which the read waits.
func (p *peerLink) readReplyLocked(now primary.Instant, stream uint64, reply *wire.Reply) {
	core := p.t.core
	waiting := core.Fetching(p.node, stream, reply.ID)
	switch {
	case waiting == nil: // too late
	case reply.Range != waiting.Range:
		core.Fetched(now, p.node, waiting, fmt.Errorf("it answered for %v", reply.Range))
	case reply.Code != wire.OK:
		core.Fetched(now, p.node, waiting, fmt.Errorf("%v: %s", reply.Code, reply.Text))
	default:
		waiting.Owner.(*op).fill(reply.Data)
		core.Fetched(now, p.node, waiting, nil)
	}
}

// fill gives a mend its content, and the read that it is for its part of it.
func (o *op) fill(data []byte) {
	o.buf = blockdev.NewBuf(len(data))
	copy(o.buf.Bytes(), data)
	o.sum = crc32.Checksum(data, castagnoli)
	to := o.reader.Range
	from, end := max(o.Range.Off, to.Off), min(o.Range.End(), to.End())
	copy(o.reader.req.Buf.Bytes()[from-to.Off:end-to.Off], data[from-o.Range.Off:])
}

// mendEvery is the least time between two events about mends of one volume, and between two about reads that failed.
const mendEvery = time.Minute

// readNews gathers what is to be told of reads that the disk failed.
type readNews struct {
	at    cluster.Instant // of the last event
	count int             // since then
	first blockdev.Range
}

// add counts one; count is not 0 when it is time to tell.
func (m *readNews) add(now cluster.Instant, at blockdev.Range) (count int, first blockdev.Range) {
	if m.count == 0 {
		m.first = at
	}
	m.count++
	if m.at != 0 && now.Sub(m.at) < mendEvery {
		return 0, first
	}
	count, first = m.count, m.first
	*m = readNews{at: now}
	return count, first
}

// mended counts a block that was written anew.
func (t *Tenure) mended(at blockdev.Range) {
	r := t.r
	r.meter.mends.Add(1)
	r.mu.Lock()
	count, first := r.mends.add(r.node.Now(), at)
	r.mu.Unlock()
	if count > 0 {
		text := fmt.Sprintf("the primary's disk on %s could not read %d ranges, the first at %v: they were read at a member and written anew; no client saw an error; if this goes on, replace the disk", r.cfg.Node, count, first)
		r.log.Warn("blocks that could not be read were mended", "epoch", t.epoch, "what", text)
		r.event("read mended", text)
	}
}

// unread tells an operator that a client was answered with an error, for nobody else could answer its read.
func (t *Tenure) unread(at blockdev.Range, err error) {
	r := t.r
	r.mu.Lock()
	count, first := r.unread.add(r.node.Now(), at)
	r.mu.Unlock()
	if count > 0 {
		text := fmt.Sprintf("clients were told of %d reads that %s of %s could not answer, the first of %v (%v), and there is no other member that could; restore that data, or replace the disk when another replica is in sync", count, r.device(), r.cfg.Node, first, err)
		r.log.Error("reads ended with an error", "epoch", t.epoch, "what", text)
		r.event("read failed", text)
	}
}

// read answers a Read beside the stream. The primary asks for one at a time.
func (s *session) read(ctx context.Context, id uint64, at blockdev.Range) {
	r := s.r
	select {
	case r.digests <- struct{}{}:
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	r.digesting++
	r.mu.Unlock()
	r.work.do(jobFunc(func() {
		s.answer(s.answerRead(id, at))
		r.digested()
	}))
}

// answerRead reads for the primary. Its answer counts only in the stream that was asked, and only of a replica that has all
// that a member has: that is looked at after reading, for then nothing newer of another epoch is in it (R2).
func (s *session) answerRead(id uint64, at blockdev.Range) wire.Reply {
	reply := wire.Reply{Kind: wire.ReadReply, ID: id, Range: at}
	buf := blockdev.NewBuf(int(at.Len))
	_, err := s.r.dev.ReadAt(buf.Bytes(), at.Off)
	s.r.mu.Lock()
	mine := s.overLocked() == nil && s.r.recv.MayRead(s.stream)
	s.r.mu.Unlock()
	switch {
	case !mine || s.silent.Load():
		reply.Code, reply.Text = wire.ReadFailed, "this replica is not whole, or the stream is over"
	case err != nil:
		reply.Code, reply.Text = wire.ReadFailed, err.Error()
	default:
		reply.Data, reply.Buf = buf.Bytes(), buf
		return reply
	}
	buf.Free()
	return reply
}

func (s *session) answer(reply wire.Reply) {
	if s.box.Put(reply) != nil {
		s.link.Close()
	}
	s.box.Flush()
}
