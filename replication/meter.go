package replication

import (
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/resync"
)

// Stage is a part of an operation's way that is timed.
type Stage uint8

// The stages.
const (
	StageRead       Stage = iota // a read, from Submit to Done
	StageWrite                   // a write or zeroing, from Submit to Done
	StageFlush                   // a flush, from Submit to Done
	StageLocalWrite              // the part of a write or zeroing on the local backing
	StageLocalFlush              // the part of a flush on the local backing
	numStages
)

// sampleMask: of reads and writes one in eight is timed, the first included. Three readings of the clock for each
// would cost a small write some per cent of its processor time; its count costs nothing that can be measured.
const sampleMask = 8 - 1

// meter counts what a replica does, over all its tenures. The data path only adds to it.
type meter struct {
	ops       [blockdev.OpFlush + 1]atomic.Uint64 // by operation
	bytes     [blockdev.OpFlush + 1]atomic.Uint64
	errors    atomic.Uint64 // operations that were answered with an error
	sums      atomic.Uint64 // entries whose checksum did not fit
	mends     atomic.Uint64 // pieces of reads that a member answered, and that were written anew
	disk      atomic.Uint64 // failed or stalled operations of the backing
	stages    [numStages]Histogram
	feltNanos atomic.Uint64                     // of felt
	felt      [resync.TailBuckets]atomic.Uint32 // reads, writes and flushes from Submit to Done, of those that are timed
	paced     atomic.Int32                      // resyncs that ask what clients feel: every operation is timed for them
	reads     map[string]*readsAt               // by peer: reads of clients that it answered; the keys never change
	acksMu    sync.Mutex
	acks      map[string]*Histogram // by peer, from queueing an entry to its acknowledgement; none is taken out
}

func (m *meter) init(self string, replicas []cluster.Replica) {
	m.acks, m.reads = make(map[string]*Histogram, len(replicas)), make(map[string]*readsAt, len(replicas))
	for _, r := range replicas {
		if r.Node != self {
			m.acksOf(r.Node)
			m.reads[r.Node] = new(readsAt)
		}
	}
}

// readsAt counts reads that a member answered.
type readsAt struct{ ops, bytes atomic.Uint64 }

// Reads are those of clients that one replica answered.
type Reads struct{ Ops, Bytes uint64 }

func (m *meter) readAt(node string, at blockdev.Range) {
	if r := m.reads[node]; r != nil { // else it holds a replica since this one was opened, and is not counted
		r.ops.Add(1)
		r.bytes.Add(uint64(at.Len))
	}
}

func (m *meter) acksOf(node string) *Histogram {
	m.acksMu.Lock()
	defer m.acksMu.Unlock()
	if m.acks[node] == nil {
		m.acks[node] = new(Histogram)
	}
	return m.acks[node]
}

// begin counts a client's operation and says from when to time it; zero: it is not timed. counted: its stages are, too.
func (m *meter) begin(req *blockdev.Request) (began stamp, counted bool) {
	n := m.ops[req.Op].Add(1)
	m.bytes[req.Op].Add(uint64(req.Range.Len))
	counted = req.Op == blockdev.OpFlush || n&sampleMask == 1
	if !counted && m.paced.Load() == 0 {
		return 0, false
	}
	return takeStamp(), counted
}

// done counts an operation of a client that is answered.
func (m *meter) done(o *op) {
	if o.Err != nil {
		m.errors.Add(1)
	}
	if o.began == 0 {
		return
	}
	took := o.began.to(takeStamp())
	m.felt[resync.TailBucket(took)].Add(1)
	m.feltNanos.Add(uint64(max(took, 0)))
	if !o.counted {
		return
	}
	s := StageWrite
	switch o.Kind {
	case blockdev.OpRead:
		s = StageRead
	case blockdev.OpFlush:
		s = StageFlush
	}
	m.stages[s].Observe(took)
}

// localBegins is when the local part of an operation that is timed begins.
func (o *op) localBegins() stamp {
	if !o.counted {
		return 0
	}
	return takeStamp()
}

// localDone times the local part of a write or flush.
func (m *meter) localDone(o *op, began stamp) {
	if began == 0 {
		return
	}
	s := StageLocalWrite
	if o.Kind == blockdev.OpFlush {
		s = StageLocalFlush
	}
	m.stages[s].Observe(began.to(takeStamp()))
}

// probe times one entry at a time on its way to a peer and back.
type probe struct {
	num uint64
	at  stamp // zero: none is under way
}

func (p *probe) sent(num uint64) {
	if p.at == 0 {
		p.num, p.at = num, takeStamp()
	}
}

func (p *probe) acked(num uint64, h *Histogram) {
	if p.at != 0 && num >= p.num {
		h.Observe(p.at.to(takeStamp()))
		p.at = 0
	}
}

// counts are the figures of clients' operations at one moment.
type counts struct{ ops, bytes [blockdev.OpFlush + 1]uint64 }

func (m *meter) counts() (c counts) {
	for i := range m.ops {
		c.ops[i], c.bytes[i] = m.ops[i].Load(), m.bytes[i].Load()
	}
	return c
}

// clients is what a resync holds its pace against.
func (m *meter) clients() (c resync.Clients) {
	for _, n := range m.counts().ops {
		c.Ops += n
	}
	c.Took = time.Duration(m.feltNanos.Load())
	for i := range m.felt {
		c.Tail[i] = m.felt[i].Load()
		c.Timed += uint64(c.Tail[i])
	}
	return c
}

// Figures are what a replica counted since it was opened.
type Figures struct {
	Volume string
	// Ops and Bytes are of clients, by blockdev.Op.
	Ops, Bytes [blockdev.OpFlush + 1]uint64
	// Errors are operations answered with an error.
	Errors uint64
	// ChecksumErrors are entries of a stream whose checksum did not fit; DiskErrors failed or stalled operations of
	// the backing.
	ChecksumErrors, DiskErrors uint64
	// ReadRepairs are pieces of reads that the primary's disk could not read, a member answered, and that were written anew.
	ReadRepairs uint64
	Stages      [numStages]Latency
	Acks        map[string]Latency // by peer
	// ReadsAt are reads of clients that another member answered, by its name.
	ReadsAt map[string]Reads
	// InFlight is how many of the clients' operations are admitted and not complete; Taken and TakenBytes what this
	// replica took as a standby and has not written.
	InFlight, Taken int
	TakenBytes      int64
	Verified        Verified
}

// The limits of Figures.Taken and TakenBytes.
const (
	MaxTaken      = maxTaken
	MaxTakenBytes = maxTakenBytes
)

// Figures reads the counts.
func (r *Replica) Figures() Figures {
	m := &r.meter
	c := m.counts()
	f := Figures{Volume: r.cfg.Volume.Name, Ops: c.ops, Bytes: c.bytes, Errors: m.errors.Load(), ChecksumErrors: m.sums.Load(),
		DiskErrors: m.disk.Load(), ReadRepairs: m.mends.Load(), Acks: map[string]Latency{}}
	f.Verified = r.Verified()
	for i := range m.stages {
		f.Stages[i] = m.stages[i].Read()
	}
	m.acksMu.Lock()
	for p, h := range m.acks {
		f.Acks[p] = h.Read()
	}
	m.acksMu.Unlock()
	f.ReadsAt = r.ReadsAt()
	r.mu.Lock()
	f.Taken, f.TakenBytes = r.recv.Outstanding(), r.taken
	t := r.tenure
	r.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		f.InFlight = t.core.InFlight()
		t.mu.Unlock()
	}
	return f
}

// ReadsAt are reads of clients that another member answered, by its name.
func (r *Replica) ReadsAt() map[string]Reads {
	all := make(map[string]Reads, len(r.meter.reads))
	for n, c := range r.meter.reads {
		all[n] = Reads{c.ops.Load(), c.bytes.Load()}
	}
	return all
}
