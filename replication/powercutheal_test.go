//go:build failpoints

package replication

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// heal starts what is off and does what a leader would, until both are members and connected.
func (r *cutRun) heal(writer *sync.WaitGroup) {
	var ended atomic.Bool
	go func() { writer.Wait(); ended.Store(true) }()
	for _, n := range r.nodes {
		n.start()
	}
	r.forceAfter()
	r.await("everything to heal", func() bool {
		r.pass(dropAfter / 10)
		r.allow()
		v := r.volume()
		r.forceAgain(v)
		r.cutAgain(ended.Load())
		p := r.lab.nodes[v.Primary]
		if rep := p.get().Report(); v.Process == p.process && rep.Usable() {
			p.leaseMu.Lock()
			led := p.granted && v.Epoch > p.gaveUp
			p.leaseMu.Unlock()
			if !led {
				p.grant()
			}
			return r.whole()
		}
		if n, how := r.follows(v); n != nil && r.async != nil {
			r.promoteAsync(v, n, how)
		} else if n != nil {
			leave := []string{}
			for m := range v.Members {
				if rep := r.lab.nodes[m].get().Report(); m != n.name && (v.LostMemory(m, &rep) && !rep.Clean.Matches(v.Members[m]) || how == cluster.BasisAllLost) {
					leave = append(leave, m)
				}
			}
			rep := n.get().Report()
			r.apply(cluster.Command{Promote: &cluster.Promote{On: r.on(), Term: 1, Candidate: n.name, Member: n.member(), Basis: how, Clean: rep.Clean, Leave: leave}})
			n.grant()
		}
		return false
	})
	if r.back != nil && r.back.taken {
		r.atPoint()
	}
}

// follows is the leader's choice (failover: pick), which hears both nodes, or that of a person, where a member lives whose
// disk has failed and the other has lost what was not flushed.
func (r *cutRun) follows(v *cluster.Volume) (*labNode, cluster.Basis) {
	if r.async != nil {
		return r.followsAsync(v)
	}
	var usable []*labNode
	writes := false // an unchanged member has yet to write what it took: nobody with less goes before it
	for _, name := range append([]string{v.Primary}, v.MemberNames()...) {
		if !v.IsMember(name) {
			continue
		}
		n := r.lab.nodes[name]
		rep := n.get().Report()
		if !rep.Usable() {
			continue
		}
		if v.MayLead(name, &rep, rep.Taken) {
			usable = append(usable, n)
		} else if v.Unchanged(name, &rep) {
			writes = true
		}
	}
	for _, n := range usable {
		if rep := n.get().Report(); v.Unchanged(n.name, &rep) {
			return n, cluster.BasisUnchanged
		}
	}
	for _, n := range usable {
		if rep := n.get().Report(); rep.Clean.Matches(v.Members[n.name]) {
			return n, cluster.BasisClean
		}
	}
	if writes {
		return nil, ""
	}
	for _, n := range usable {
		if n.name == v.Primary {
			return n, cluster.BasisLastPrimary
		}
		if last := r.lab.nodes[v.Primary].get().Report(); last.Failed {
			return n, cluster.BasisAllLost
		}
	}
	return nil, ""
}

// check is what must be true of the disks.
func (r *cutRun) check() {
	p, s := r.pair()
	if err := p.get().Tenure().client(r.t).flush(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("healed, volume %+v", r.volume())
	r.aside()
	r.same(p.name, s.name)
	r.durable(p.name, s.name)
	for b := range cutBlocks {
		got := p.at(int64(b)*(cutVolume/cutBlocks), blockdev.BlockSize)
		for at := 0; at < len(got); at += 512 {
			v := binary.LittleEndian.Uint64(got[at:])
			for i := at; i < at+512; i += 8 {
				if binary.LittleEndian.Uint64(got[i:]) != v {
					r.t.Fatalf("sector at %d of block %d holds parts of %d and others", at, b, v)
				}
			}
			if v < r.acked[b] || v > r.newest[b] {
				r.t.Fatalf("sector at %d of block %d holds write %d; %d was to be kept, %d is the newest; cut of %d nodes at %v", at, b, v, r.acked[b], r.newest[b], len(r.nodes), r.point)
			}
		}
	}
}
