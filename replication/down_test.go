package replication

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// That a node does not answer is news for a moment: who said so may have ended, and the node be back.
func TestNodeIsNotTakenForDownForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Crowd
		c.greeted("b", errors.New("connection refused"))
		if !c.isDown("b") || c.isDown("a") {
			t.Fatal("not told")
		}
		time.Sleep(downFor)
		if c.isDown("b") {
			t.Error("nobody has said so for a while, and nobody calls it")
		}
		c.greeted("b", errors.New("connection refused"))
		if c.greeted("b", nil); c.isDown("b") {
			t.Error("it answered")
		}
	})
}
