package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Record is what a writer knows: which writes it sent, which of them were acknowledged, and by whom. Writes to one
// block must be sent one after the other.
type Record struct {
	Writes   int // acknowledged writes
	Blocks   int // blocks that they wrote, counted each time
	blocks   map[int64]*history
	sent     map[uint64]span
	switches []Switch
}

// Switch is the first acknowledgement of a server other than the one before.
type Switch struct {
	At     time.Duration // on the clock of Monotonic
	Server string
}

type span struct{ block, blocks int64 }

// history is what one block may hold: the last acknowledged write, or one of those sent after it.
type history struct {
	acked uint64 // 0: none
	later []uint64
}

func newRecord() Record {
	return Record{blocks: map[int64]*history{}, sent: map[uint64]span{}}
}

// LoadRecord reads what a Recorder wrote, also when its process was killed in the middle of a line.
func LoadRecord(path string) (*Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, in := newRecord(), bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return &r, nil // a line without its end was never acted upon
		}
		if err == nil {
			err = r.apply(strings.Fields(line))
		}
		if err != nil {
			return nil, fmt.Errorf("record %s, line %d, %q: %w", path, n, line, err)
		}
	}
}

// apply takes one line of a record:
//
//	w SEQ BLOCK BLOCKS    the write SEQ of BLOCKS blocks from BLOCK on is about to be sent
//	a SEQ                 it was acknowledged
//	s NANOSECONDS SERVER  from the next acknowledgement on, they come from this server
func (r *Record) apply(words []string) error {
	switch {
	case len(words) == 4 && words[0] == "w":
		var n [3]int64
		for i := range n {
			var err error
			if n[i], err = strconv.ParseInt(words[1+i], 10, 64); err != nil {
				return err
			}
		}
		r.began(uint64(n[0]), span{n[1], n[2]})
		return nil
	case len(words) == 2 && words[0] == "a":
		seq, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return err
		}
		return r.acked(seq)
	case len(words) == 3 && words[0] == "s":
		at, err := strconv.ParseInt(words[1], 10, 64)
		r.switches = append(r.switches, Switch{time.Duration(at), words[2]})
		return err
	}
	return errors.New("w, a or s with its numbers is wanted")
}

func (r *Record) began(seq uint64, s span) {
	r.sent[seq] = s
	for b := s.block; b < s.block+s.blocks; b++ {
		h := r.blocks[b]
		if h == nil {
			h = new(history)
			r.blocks[b] = h
		}
		h.later = append(h.later, seq)
	}
}

func (r *Record) acked(seq uint64) error {
	s, ok := r.sent[seq]
	if !ok {
		return fmt.Errorf("write %d was acknowledged without having been sent, or twice", seq)
	}
	delete(r.sent, seq)
	for b := s.block; b < s.block+s.blocks; b++ {
		h := r.blocks[b]
		h.acked = seq
		h.later = h.later[slices.Index(h.later, seq)+1:]
	}
	r.Writes++
	r.Blocks += int(s.blocks)
	return nil
}

// Size is the number of different blocks that were written.
func (r *Record) Size() int { return len(r.blocks) }

// SwitchAfter is the first change of server at or after a time.
func (r *Record) SwitchAfter(at time.Duration) (Switch, bool) {
	i := slices.IndexFunc(r.switches, func(s Switch) bool { return s.At >= at })
	if i < 0 {
		return Switch{}, false
	}
	return r.switches[i], true
}

// AnyAcked is the first block that holds an acknowledged write, and its number.
func (r *Record) AnyAcked() (block int64, seq uint64, ok bool) {
	for _, b := range slices.Sorted(maps.Keys(r.blocks)) {
		if h := r.blocks[b]; h.acked > 0 && len(h.later) == 0 {
			return b, h.acked, true
		}
	}
	return 0, 0, false
}

// Loss is a block that holds neither its last acknowledged write nor one sent after it.
type Loss struct {
	Block int64
	Acked uint64
	Holds string
}

func (l Loss) String() string {
	if l.Acked == 0 {
		return fmt.Sprintf("block %d (byte %d): no write to it was acknowledged, it holds %s", l.Block, l.Block*StampSize, l.Holds)
	}
	return fmt.Sprintf("block %d (byte %d): write %d was acknowledged, it holds %s", l.Block, l.Block*StampSize, l.Acked, l.Holds)
}

// longestRead is how much Check reads at a time.
const longestRead = 256

// Check reads every block that was ever written and returns those with something else than they must hold.
func (r *Record) Check(dev io.ReaderAt) (lost []Loss, err error) {
	order := slices.Sorted(maps.Keys(r.blocks))
	buf := make([]byte, longestRead*StampSize)
	for len(order) > 0 {
		n := 1
		for n < len(order) && n < longestRead && order[n] == order[0]+int64(n) {
			n++
		}
		p := buf[:n*StampSize]
		if _, err := dev.ReadAt(p, order[0]*StampSize); err != nil {
			return lost, fmt.Errorf("read blocks %d to %d back: %w", order[0], order[n-1], err)
		}
		for i, b := range order[:n] {
			if l, bad := r.judge(b, p[i*StampSize:][:StampSize]); bad {
				lost = append(lost, l)
			}
		}
		order = order[n:]
	}
	return lost, nil
}

func (r *Record) judge(block int64, p []byte) (l Loss, bad bool) {
	h := r.blocks[block]
	l = Loss{Block: block, Acked: h.acked}
	seq, err := readStamp(p, block)
	switch {
	case err != nil:
		l.Holds = err.Error()
	case seq == h.acked || slices.Contains(h.later, seq):
		return l, false
	case seq == 0:
		l.Holds = "zeroes"
	case seq < h.acked:
		l.Holds = fmt.Sprintf("the older write %d", seq)
	default:
		l.Holds = fmt.Sprintf("write %d, which was never sent there", seq)
	}
	return l, true
}

// Recorder keeps a Record while a load runs, and writes it to a file line by line, so that another process can judge by
// it, also after this one was killed. It is not safe for concurrent use.
type Recorder struct {
	Record
	file   *os.File
	server string
}

// NewRecorder begins a record. Without a path it is kept in memory only.
func NewRecorder(path string) (*Recorder, error) {
	r := &Recorder{Record: newRecord()}
	if path == "" {
		return r, nil
	}
	var err error
	r.file, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o644)
	return r, err
}

func (r *Recorder) line(b []byte) error {
	if r.file == nil {
		return nil
	}
	_, err := r.file.Write(b)
	return err
}

// Begin notes a write that is about to be sent.
func (r *Recorder) Begin(seq uint64, block, blocks int64) error {
	r.began(seq, span{block, blocks})
	return r.line(fmt.Appendf(nil, "w %d %d %d\n", seq, block, blocks))
}

// Acked notes that a write was acknowledged, and by which server; empty: not known.
func (r *Recorder) Acked(seq uint64, server string) error {
	var b bytes.Buffer
	if server != "" && server != r.server {
		r.server = server
		s := Switch{Monotonic(), server}
		r.switches = append(r.switches, s)
		fmt.Fprintf(&b, "s %d %s\n", s.At.Nanoseconds(), server)
	}
	fmt.Fprintf(&b, "a %d\n", seq)
	return errors.Join(r.acked(seq), r.line(b.Bytes()))
}

// Close closes the file.
func (r *Recorder) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
