package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// optStartTLS puts TLS between the client and everything that follows. What was negotiated in plain text is forgotten,
// and plain bytes behind the request end the connection: somebody in between may have added either.
func (c *conn) optStartTLS(ctx context.Context, o option) error {
	switch {
	case len(o.data) != 0:
		return c.replyText(o.code, nbdproto.RepErrInvalid, "this option takes no data")
	case c.tls:
		return c.replyText(o.code, nbdproto.RepErrInvalid, "TLS is in use already")
	case c.srv.cfg.TLS == nil:
		return c.replyText(o.code, nbdproto.RepErrUnsup, "this server has no certificate for NBD")
	case c.in.buffered() != 0:
		return errors.New("bytes in plain text behind STARTTLS")
	}
	if err := c.reply(o.code, nbdproto.RepAck, nil); err != nil {
		return err
	}
	t := tls.Server(c.base, c.srv.cfg.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.nc, c.in, c.tls = t, newInput(t), true
	c.structured, c.allocation, c.contextName = false, false, ""
	return nil
}
