package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// handshake greets the client and answers options until it has chosen an export, which is then in c.export.
func (c *conn) handshake(ctx context.Context) error {
	if err := c.base.SetDeadline(time.Now().Add(c.srv.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	noZeroes, err := c.greet()
	if err != nil {
		return err
	}
	for n := 0; n < c.srv.cfg.MaxOptions; n++ {
		o, err := c.readOption()
		if err != nil {
			return fmt.Errorf("option %d: %w", n, err)
		}
		done, err := c.option(ctx, o, noZeroes)
		if err != nil {
			return fmt.Errorf("option %d (type %d): %w", n, o.code, err)
		}
		if done {
			return c.base.SetDeadline(time.Time{})
		}
	}
	return fmt.Errorf("client sent %d options without choosing an export", c.srv.cfg.MaxOptions)
}

// greet exchanges flags. A client that has never heard of options with answers may still name an export.
func (c *conn) greet() (noZeroes bool, err error) {
	b := binary.BigEndian.AppendUint64(nil, nbdproto.MagicInit)
	b = binary.BigEndian.AppendUint64(b, nbdproto.MagicOption)
	b = binary.BigEndian.AppendUint16(b, nbdproto.FlagFixedNewstyle|nbdproto.FlagNoZeroes)
	if _, err := c.nc.Write(b); err != nil {
		return false, err
	}
	b, err = c.in.next(4)
	if err != nil {
		return false, err
	}
	flags := binary.BigEndian.Uint32(b)
	if flags&^uint32(nbdproto.FlagFixedNewstyle|nbdproto.FlagNoZeroes) != 0 {
		return false, fmt.Errorf("client flags are %#x: some are unknown", flags)
	}
	return flags&uint32(nbdproto.FlagNoZeroes) != 0, nil
}

// option is one option as it was received; data is bounded by Config.MaxOptionLen.
type option struct {
	code nbdproto.Option
	data []byte
}

func (c *conn) readOption() (option, error) {
	b, err := c.in.next(nbdproto.OptionLen)
	if err != nil {
		return option{}, err
	}
	h := nbdproto.ParseOption(b)
	if h.Magic != nbdproto.MagicOption {
		return option{}, fmt.Errorf("magic is %#x", h.Magic)
	}
	if int64(h.Len) > int64(c.srv.cfg.MaxOptionLen) {
		err := fmt.Errorf("option of %d bytes, the limit is %d", h.Len, c.srv.cfg.MaxOptionLen)
		return option{}, errors.Join(err, c.replyText(h.Option, nbdproto.RepErrTooBig, err.Error()))
	}
	o := option{code: h.Option, data: make([]byte, h.Len)}
	_, err = c.in.payload(o.data)
	return o, err
}

// option answers one option. done: the transmission phase begins. An error closes the connection.
func (c *conn) option(ctx context.Context, o option, noZeroes bool) (done bool, err error) {
	if !c.tls && demandsTLS(c.base.LocalAddr()) && o.code != nbdproto.OptStartTLS && o.code != nbdproto.OptAbort {
		if o.code == nbdproto.OptExportName {
			return false, errors.New("EXPORT_NAME without TLS on an address that demands it")
		}
		return false, c.replyText(o.code, nbdproto.RepErrTLSReqd, "use STARTTLS first")
	}
	switch o.code {
	case nbdproto.OptExportName:
		return c.optExportName(o, noZeroes)
	case nbdproto.OptAbort:
		// The client may have gone without waiting for this.
		return false, errors.Join(errDone, c.reply(o.code, nbdproto.RepAck, nil))
	case nbdproto.OptList:
		return false, c.optList(o)
	case nbdproto.OptInfo, nbdproto.OptGo:
		return c.optInfo(o)
	case nbdproto.OptStructuredReply:
		if len(o.data) != 0 {
			return false, c.replyText(o.code, nbdproto.RepErrInvalid, "this option takes no data")
		}
		c.structured = true
		return false, c.reply(o.code, nbdproto.RepAck, nil)
	case nbdproto.OptListMetaContext, nbdproto.OptSetMetaContext:
		return false, c.optMeta(o)
	case nbdproto.OptStartTLS:
		return false, c.optStartTLS(ctx, o)
	}
	return false, c.replyText(o.code, nbdproto.RepErrUnsup, "unknown option")
}

// reply sends one answer.
func (c *conn) reply(o nbdproto.Option, r nbdproto.Rep, data []byte) error {
	_, err := c.nc.Write(nbdproto.AppendOptReply(nil, o, r, data))
	return err
}

func (c *conn) replyText(o nbdproto.Option, r nbdproto.Rep, text string) error {
	return c.reply(o, r, []byte(text[:min(len(text), nbdproto.MaxName)]))
}

// demandsTLS: only a tcp address that other machines can reach does.
func demandsTLS(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && !t.IP.IsLoopback()
}
