package nbd

import "context"

// gate asks for leave to admit or to answer; it may block.
func (c *conn) gate(ctx context.Context) error {
	if c.isGone() {
		return errGone
	}
	if c.tryGate != nil && c.tryGate() {
		return nil
	}
	return c.export.Gate(ctx)
}

func (c *conn) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}
