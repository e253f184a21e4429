package attach

import "fmt"

// Verdict says what becomes of held requests.
type Verdict int

// The verdicts.
const (
	Wait Verdict = iota // they stay held
	Go                  // they may be asked of this connection
	Over                // they never may be, of any: they end with an error
)

// Hold judges connections. What it was shown last is the newest epoch in which requests may have been answered.
//
// A request without an answer may or may not have taken effect, and what was answered is in the volume. Asked again, it only sets
// its range to what it would have set it to, as long as nobody else wrote meanwhile and nothing that was answered is lost. That is
// so when this node was primary from then till now, without a break.
type Hold struct {
	id   string
	last uint64
}

// Judge looks at a connection; said is false when it does not say in which epoch it serves. why is empty with Go.
func (h *Hold) Judge(t Tenure, said bool) (v Verdict, why string) {
	switch {
	case !said:
		return Wait, "the daemon does not say in which epoch it serves"
	case h.id == "":
		h.id = t.ID
	case t.ID != h.id:
		return Over, "the volume was deleted, and another one has its name now"
	case t.Epoch < h.last:
		return Wait, fmt.Sprintf("the daemon serves in epoch %d, an earlier one served in epoch %d already", t.Epoch, h.last)
	case t.Epoch > h.last && (t.Since == 0 || t.Since > h.last):
		return Over, broken(h.last, t.Epoch)
	}
	h.last = t.Epoch
	return Go, ""
}

// broken says why what was read or asked in one epoch does not hold in another.
func broken(last, now uint64) string {
	return fmt.Sprintf("this node was not primary from epoch %d to %d without a break: another may have written, or what was acknowledged may be lost", last, now)
}

// ID is the volume's; empty before the first connection.
func (h *Hold) ID() string { return h.id }

// Last is the newest epoch in which requests went out; 0: none.
func (h *Hold) Last() uint64 { return h.last }
