//go:build failpoints

package replication

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"hacluster/blockdev"
)

// writes waits until n more writes were acknowledged.
func (r *cutRun) writes(n uint64) {
	count := func() (all uint64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.next
	}
	from := count()
	r.soon("writes", func() bool { r.pass(0); return count() >= from+n })
}

// write is the client: batches of blocks, each written by one at a time, and flushes between them.
func (r *cutRun) write(stop chan struct{}) {
	rng := rand.New(rand.NewPCG(r.rng.Uint64(), 4))
	for {
		select {
		case <-stop:
			return
		default:
		}
		if !r.pause(stop) {
			return
		}
		var t *Tenure
		for _, n := range r.lab.nodes {
			if k := n.get().Tenure(); k != nil && k.gate.try() {
				t = k
			}
		}
		if t == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		c := t.client(r.t)
		for !r.hold.Load() && r.batch(c, rng) {
			select {
			case <-stop:
				return
			default:
			}
		}
	}
}

func (r *cutRun) batch(c *clientConn, rng *rand.Rand) bool {
	type one struct {
		block int
		sent  *sentWrite
		done  <-chan error
	}
	var all []one
	for _, b := range rng.Perm(cutBlocks)[:1+rng.IntN(4)] {
		r.mu.Lock()
		r.next++
		v := r.next
		r.newest[b] = v
		sent := r.async.begins(b, v, r.lab.now())
		r.mu.Unlock()
		req := writeReq(int64(b)*(cutVolume/cutBlocks), cutContent(v))
		req.FUA = rng.IntN(10) == 0
		all = append(all, one{b, sent, c.begin(req)})
		if req.FUA {
			all[len(all)-1].block += cutBlocks // what it acknowledged is durable
		}
	}
	good := true
	for _, o := range all {
		err := <-o.done
		r.mu.Lock()
		switch b := o.block % cutBlocks; {
		case err != nil:
			good = false
		case r.answered(o.sent, o.block >= cutBlocks):
			r.acked[b] = o.sent.value
			if o.block >= cutBlocks {
				r.flushed[b] = o.sent.value
			}
		}
		r.mu.Unlock()
	}
	if !good || rng.IntN(3) > 0 {
		return good
	}
	r.mu.Lock()
	before, f := r.acked, streamFence{after: r.next, blocks: r.acked}
	turn := r.async.turn()
	r.mu.Unlock()
	if err := c.flush(); err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if turn == r.async.turn() { // else it was durable where it was lost with the rest
		r.flushed = before
		r.async.fenced(f)
	}
	return true
}

func cutContent(v uint64) []byte {
	p := make([]byte, blockdev.BlockSize)
	for at := 0; at < len(p); at += 8 {
		binary.LittleEndian.PutUint64(p[at:], v)
	}
	return p
}
