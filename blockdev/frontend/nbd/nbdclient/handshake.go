package nbdclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// maxOptReply is the longest answer to an option that is taken.
const maxOptReply = 64 << 10

// handshake brings the connection into the transmission phase.
func (c *Client) handshake(ctx context.Context, t target) error {
	c.in = bufio.NewReaderSize(c.nc, 64<<10)
	if err := c.greet(); err != nil {
		return err
	}
	if t.tls {
		if err := c.startTLS(ctx, t); err != nil {
			return err
		}
	}
	if !c.cfg.Simple {
		if err := c.structure(t.export); err != nil {
			return err
		}
	}
	return c.choose(t.export)
}

func (c *Client) greet() error {
	var b [18]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(b[:]) != nbdproto.MagicInit || binary.BigEndian.Uint64(b[8:]) != nbdproto.MagicOption {
		return errors.New("the server does not speak newstyle NBD")
	}
	flags := binary.BigEndian.Uint16(b[16:]) & (nbdproto.FlagFixedNewstyle | nbdproto.FlagNoZeroes)
	if flags&nbdproto.FlagFixedNewstyle == 0 {
		return errors.New("the server does not speak fixed newstyle NBD")
	}
	_, err := c.nc.Write(binary.BigEndian.AppendUint32(nil, uint32(flags)))
	return err
}

// ask sends an option and gives each answer to each, up to the last: an ACK, or an error, which is returned.
func (c *Client) ask(o nbdproto.Option, export string, data []byte, each func(nbdproto.Rep, []byte) error) error {
	if _, err := c.nc.Write(nbdproto.AppendOption(nil, o, data)); err != nil {
		return err
	}
	for {
		var b [nbdproto.OptReplyLen]byte
		if _, err := io.ReadFull(c.in, b[:]); err != nil {
			return fmt.Errorf("answer to option %d: %w", o, err)
		}
		h := nbdproto.ParseOptReply(b[:])
		if h.Magic != nbdproto.MagicOptReply || h.Option != o || h.Len > maxOptReply {
			return fmt.Errorf("answer to option %d is malformed: %+v", o, h)
		}
		data := make([]byte, h.Len)
		if _, err := io.ReadFull(c.in, data); err != nil {
			return fmt.Errorf("answer to option %d: %w", o, err)
		}
		switch {
		case h.Rep == nbdproto.RepAck:
			return nil
		case h.Rep.IsError():
			return &ExportError{Export: export, Rep: h.Rep, Message: string(data)}
		case each == nil:
			return fmt.Errorf("answer %d to option %d was not asked for", h.Rep, o)
		}
		if err := each(h.Rep, data); err != nil {
			return err
		}
	}
}

func (c *Client) startTLS(ctx context.Context, t target) error {
	if c.cfg.TLS == nil {
		return errors.New("nbds needs a TLS configuration")
	}
	if err := c.ask(nbdproto.OptStartTLS, t.export, nil, nil); err != nil {
		return err
	}
	cfg := c.cfg.TLS.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = t.host
	}
	tc := tls.Client(c.nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return err
	}
	c.nc, c.in = tc, bufio.NewReaderSize(tc, 64<<10)
	return nil
}

// structure asks for structured replies and base:allocation; a server may have neither.
func (c *Client) structure(export string) error {
	var refused *ExportError
	err := c.ask(nbdproto.OptStructuredReply, export, nil, nil)
	if errors.As(err, &refused) {
		return nil
	} else if err != nil {
		return err
	}
	c.structured = true
	data := appendString(nil, export)
	data = binary.BigEndian.AppendUint32(data, 1)
	data = appendString(data, nbdproto.BaseAllocation)
	err = c.ask(nbdproto.OptSetMetaContext, export, data, func(r nbdproto.Rep, b []byte) error {
		c.allocation = c.allocation || (r == nbdproto.RepMetaContext && len(b) > 4)
		return nil
	})
	if errors.As(err, &refused) { // GO will say it better
		return nil
	}
	return err
}

func (c *Client) choose(export string) error {
	data := appendString(nil, export)
	data = binary.BigEndian.AppendUint16(data, 2)
	data = binary.BigEndian.AppendUint16(data, uint16(nbdproto.InfoBlockSize))
	data = binary.BigEndian.AppendUint16(data, uint16(nbdproto.InfoDescription))
	return c.ask(nbdproto.OptGo, export, data, func(r nbdproto.Rep, b []byte) error {
		if r != nbdproto.RepInfo || len(b) < 2 {
			return fmt.Errorf("answer %d to GO", r)
		}
		kind, b := nbdproto.Info(binary.BigEndian.Uint16(b)), b[2:]
		switch {
		case kind == nbdproto.InfoExport && len(b) == 10:
			c.size = int64(binary.BigEndian.Uint64(b))
			c.flags = nbdproto.TransFlags(binary.BigEndian.Uint16(b[8:]))
			if c.size < 0 {
				return fmt.Errorf("export of %d bytes", uint64(c.size))
			}
		case kind == nbdproto.InfoBlockSize && len(b) == 12:
			if m := binary.BigEndian.Uint32(b[8:]); m >= 4096 && m < nbdproto.MaxPayload {
				c.maxPayload = int(m)
			}
		case kind == nbdproto.InfoDescription && len(b) <= nbdproto.MaxName:
			c.description = string(b)
		}
		return nil
	})
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
