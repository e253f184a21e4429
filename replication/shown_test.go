package replication

import (
	"errors"
	"testing"

	"hacluster/blockdev"
)

// From when a smaller size is decided, nothing behind it is acknowledged any more, though the old one is in force: the promotion
// that takes it away may come much later, and by itself (R19).
func TestNothingIsAcknowledgedBehindTheEndThatIsToCome(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	size, next := ten.Export().Size(), ten.Export().Size()/2
	old := ten.client(t)
	if err := old.write(next, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	was := a.get().Volume()
	v := was.Clone()
	v.Version, v.Next, v.NextResized = v.Version+1, next, 1
	ten.set(v)
	select {
	case <-old.e.Gone():
	default:
		t.Error("a client that sees the old size is not cut off")
	}
	ten.set(was) // late
	ended := make(chan error, 1)
	old.e.Submit(&blockdev.Request{Op: blockdev.OpZero, Range: blockdev.Range{Off: next - 4096, Len: 8192}, Done: func(r *blockdev.Request) { ended <- r.Err }})
	if err := <-ended; !errors.Is(err, blockdev.ErrRange) {
		t.Errorf("it was admitted behind the end: %v", err)
	}
	c := ten.client(t)
	if c.e.Size() != next {
		t.Errorf("a new client sees %d bytes, %d are wanted", c.e.Size(), next)
	}
	if err := c.write(next-4096, pattern(4096, 2)); err != nil {
		t.Error(err)
	}
	v.Version, v.Next, v.NextResized = v.Version+1, 0, 0
	ten.set(v)
	again := ten.client(t)
	if again.e.Size() != size {
		t.Errorf("taken back, a new client sees %d bytes of %d", again.e.Size(), size)
	}
	if err := errors.Join(again.write(size-4096, pattern(4096, 3)), c.write(0, pattern(4096, 4))); err != nil {
		t.Error(err)
	}
	ten.cutClients()
	for _, c := range []*clientConn{c, again} {
		select {
		case <-c.e.Gone():
		default:
			t.Error("a client is left when all are cut off")
		}
	}
	v.Version, v.Next = v.Version+1, 2*size
	ten.set(v)
	if got := ten.Export().Size(); got != size {
		t.Errorf("a growth that waits shows %d bytes", got)
	}
}
