package scenario

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/client"
	"hacluster/cmd/internal/lab/history"
)

// Claims are how often what `ha-admin status` says of the replicas was held against the bytes on the disks.
type Claims struct {
	Checks  int `json:"checks"`
	Members int `json:"members"` // a replica called a member: it has all that was acknowledged and flushed
	Equal   int `json:"equal"`   // both members and nothing under way: they are equal byte for byte
	Behind  int `json:"behind"`  // no member: what differs is no more than dirty_bytes
	Differ  int `json:"differ"`  // of these: something differed
	Partly  int `json:"partly"`  // of these: dirty_bytes was less than the volume
	Silent  int `json:"silent"`  // nobody with a quorum said anything that stayed true while the disks were read
}

const (
	claimTries = 4
	claimPause = 100 * time.Millisecond // between two tries: a resync, or a change of the set, goes on meanwhile
)

// claims holds what status says against the bytes, with the load standing still: a member has every acknowledged write, all
// of which are durable in a soak; of a replica that is none, no more differs than dirty_bytes says; who is promotable is a
// member. Status is asked before and after the disks are read, and what is not the same in both is not judged.
func (r *Run) claims(ctx context.Context, when string) {
	if !r.s.Claims {
		return
	}
	unanswered, resume := r.Client.Pause()
	defer resume()
	r.res.Claims.Checks++
	for range claimTries {
		sure, err := r.claimOnce(ctx, when, unanswered)
		switch {
		case err != nil:
			r.res.broken(fmt.Sprintf("%s: hold the status against the disks: %v", when, err))
			return
		case sure:
			return
		}
		select {
		case <-time.After(claimPause):
		case <-ctx.Done():
			return
		}
	}
	r.res.Claims.Silent++
}

// claimOnce reports whether what was said was the same before and after.
func (r *Run) claimOnce(ctx context.Context, when string, unanswered int) (sure bool, err error) {
	asked := history.Clock()
	before, ok := r.statusNow(ctx)
	if !ok {
		return false, nil
	}
	disks := map[string]string{}
	read := map[string][]history.Op{}
	for _, rep := range before.Replicas {
		if disks[rep.Node], err = r.Lab.Bytes(rep.Node); err != nil {
			return false, err
		}
		if read[rep.Node], err = r.registersOn(disks[rep.Node], rep.Node, asked); err != nil {
			return false, err
		}
	}
	var differing []int64
	if before.Primary != "" {
		if differing, err = compare(disks[r.Other(before.Primary)], disks[before.Primary], math.MaxInt); err != nil {
			return false, err
		}
	}
	after, ok := r.statusNow(ctx)
	if !ok || after.Epoch != before.Epoch || after.Primary != before.Primary || !slices.Equal(after.InSync, before.InSync) {
		return false, nil
	}
	r.judgeMembers(when, before, read)
	r.judgeDifference(when, before, after, differing, unanswered)
	return true, nil
}

func (r *Run) judgeMembers(when string, v api.VolumeStatus, read map[string][]history.Op) {
	ops := r.Client.Record().Ops
	for _, member := range v.InSync {
		r.res.Claims.Members++
		for i, why := range history.Lacks(ops, read[member]) {
			if i == 3 {
				break
			}
			r.res.fail(fmt.Sprintf("%s: %s is a member in epoch %d, and on its disk: %s", when, member, v.Epoch, why))
		}
	}
	for _, p := range v.Promotable {
		if p == v.Primary || !slices.Contains(v.InSync, p) {
			r.res.fail(fmt.Sprintf("%s: %s is promotable in epoch %d; the primary is %s, in sync are %v", when, p, v.Epoch, v.Primary, v.InSync))
		}
	}
}

func (r *Run) judgeDifference(when string, before, after api.VolumeStatus, differing []int64, unanswered int) {
	if before.Primary == "" {
		return
	}
	i := slices.IndexFunc(before.Replicas, func(p api.ReplicaStatus) bool { return p.Node != before.Primary })
	j := slices.IndexFunc(after.Replicas, func(p api.ReplicaStatus) bool { return p.Node != before.Primary })
	was, is := before.Replicas[i], after.Replicas[j]
	differ := int64(len(differing)) * client.BlockSize
	if slices.Contains(before.InSync, was.Node) {
		quiet := before.State == api.VolumeHealthy && after.State == api.VolumeHealthy && was.LagBytes == 0 && is.LagBytes == 0 &&
			was.SettlingBytes == 0 && is.SettlingBytes == 0 && unanswered == 0
		if !quiet {
			return
		}
		r.res.Claims.Equal++
		if differ > 0 {
			r.res.fail(fmt.Sprintf("%s: both replicas are in sync in epoch %d and nothing is under way, and %d bytes differ, the first at byte %d", when, before.Epoch, differ, differing[0]))
		}
		return
	}
	// A resync makes it less while the disks are read, what was never answered may make it more.
	dirty := max(was.DirtyBytes, is.DirtyBytes)
	r.res.Claims.Behind++
	if differ > 0 {
		r.res.Claims.Differ++
	}
	if dirty < before.Size {
		r.res.Claims.Partly++
	}
	if r.cfg.Log != nil {
		r.cfg.Log.Info("a replica is behind", "when", when, "node", was.Node, "state", is.State, "dirty_bytes", dirty, "differing_bytes", differ)
	}
	if differ > dirty {
		r.res.fail(fmt.Sprintf("%s: of %s, %s in epoch %d, %d bytes differ from the primary %s; dirty_bytes says %d and %d; the first is at byte %d",
			when, was.Node, is.State, before.Epoch, differ, before.Primary, was.DirtyBytes, is.DirtyBytes, differing[0]))
	}
}

// registersOn reads what a disk holds of the clients' blocks.
func (r *Run) registersOn(path, node string, asked time.Duration) (ops []history.Op, err error) {
	err = readBlocks(path, r.Client.Registers(), func(block int64, p []byte) {
		seq, err := client.ReadStamp(p, block)
		if err != nil {
			// No write put that there: to be told by the same words as a lost one, it bears a number that nobody wrote.
			seq = math.MaxUint64
		}
		ops = append(ops, history.Op{Who: "disk of " + node, Kind: history.Read, Block: block, Seq: seq, Server: node, Sent: asked, Answered: history.Clock()})
	})
	return ops, err
}

// statusNow asks every node and returns what the one with a quorum behind it says, asked after the call; of several, that of
// the highest epoch.
func (r *Run) statusNow(ctx context.Context) (v api.VolumeStatus, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	answers := make(chan *api.Status, len(r.state.Daemons()))
	for _, n := range r.state.Daemons() {
		go func() {
			var s *api.Status
			if c, err := api.Dial(ctx, []string{socket(r.Lab, n)}, api.DialSocket); err == nil {
				s, _, _ = c.Status(ctx, "") // no answer is nil
				c.Close()
			}
			answers <- s
		}()
	}
	for range r.state.Daemons() {
		if s := <-answers; s != nil && s.Quorum && len(s.Volumes) == 1 && (!ok || s.Volumes[0].Epoch > v.Epoch) {
			v, ok = s.Volumes[0], true
		}
	}
	return v, ok
}
