package deadline

import (
	"strings"
	"testing"
	"time"
)

// R26: what has not returned for a whole deadline is reported by name, and what returned never is.
func TestOnlyWhatDoesNotReturnExpires(t *testing.T) {
	w := New()
	slow, hung := w.Begin("slow"), w.Begin("write the superblock of v")
	for i := range Ticks {
		if err := w.Tick(time.Second); err != nil {
			t.Fatalf("tick %d: %v", i, err)
		}
	}
	slow()
	if err := w.Tick(time.Second); err == nil || !strings.Contains(err.Error(), "superblock of v") || !strings.Contains(err.Error(), "1s") {
		t.Errorf("after a deadline: %v", err)
	}
	hung()
	if err := w.Tick(time.Second); err != nil {
		t.Errorf("after its return: %v", err)
	}
}
