package blockdev

// Op is what a Request does.
type Op uint8

// The operations. Trim is Zero with Unmap: a discarded range reads as zeroes on every replica.
const (
	OpRead Op = iota + 1
	OpWrite
	OpZero
	OpFlush
)

func (o Op) String() string {
	switch o {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpZero:
		return "zero"
	case OpFlush:
		return "flush"
	}
	return "invalid"
}

// Request is one operation on its way from a frontend to a volume: the asynchronous form of a Device call.
//
// The frontend fills it, hands it to Submit and does not touch it (nor Buf) before Done is called. A Request may be
// reused after Done.
type Request struct {
	Op    Op
	Range Range
	// Buf is the payload of a write, or where a read puts its data; nil otherwise. len(Buf.Bytes()) == Range.Len.
	// The submitter holds one reference for the duration; the volume takes its own for what outlives Done.
	Buf *Buf
	// Sum is the CRC-32C (Castagnoli) of a write's payload, made where the write entered (R21).
	Sum uint32
	// FUA asks that the write or zeroing is durable on every member before Done.
	FUA bool
	// Unmap permits a zeroing to give space back.
	Unmap bool
	// More says that the submitter has the next request at hand: what this one sends to others may wait for company, until
	// the submitter calls what the volume offers for that, which it must before it waits. A later request may take it
	// along, but need not: it may be a read, wait for this one, or be held back.
	More bool
	// Err is the outcome, valid when Done is called. nil: the operation took effect as the volume's mode promises.
	Err error
	// Done is called exactly once, from any goroutine, and must not block. It is never called for a request whose
	// outcome is unknown when the role moves: the frontend's connection is closed instead.
	Done func(*Request)
	// Abandoned reports, at once and to any goroutine, whether the connection that the request came by is closed, as its
	// client knows it. A request that had to wait for its admission is asked then, and ends with ErrAbandoned instead: its
	// client may have read the old content by another connection meanwhile (R11). nil: it is never abandoned.
	Abandoned func() bool

	// Tag is the frontend's own (a cookie); nobody else reads it.
	Tag uint64
}
