package nbd

import (
	"context"

	"hacluster/blockdev"
)

// gate asks for leave to admit or to answer; it may block.
func (c *conn) gate(ctx context.Context) error {
	if ok, err := c.try(); ok || err != nil {
		return err
	}
	return c.export.Gate(ctx)
}

// gateOfReader is gate for the reader, who does not wait with requests held back.
func (c *conn) gateOfReader(ctx context.Context) error {
	if ok, err := c.try(); ok || err != nil {
		return err
	}
	c.push()
	if err := c.export.Gate(ctx); err != nil {
		return err
	}
	if c.tryGate != nil && c.abandoned() { // it had to wait, and the client may have gone elsewhere meanwhile (R11)
		return blockdev.ErrAbandoned
	}
	return nil
}

// try reports whether Gate would return nil at once, as far as the export can say.
func (c *conn) try() (ok bool, err error) {
	if c.isGone() {
		return false, errGone
	}
	return c.tryGate != nil && c.tryGate(), nil
}

func (c *conn) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}
