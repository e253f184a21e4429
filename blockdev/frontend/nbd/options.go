package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// lookup finds an export. No name, also not the empty one, stands for a volume that was not named (N10).
func (c *conn) lookup(name string) (Export, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: name the volume, there is no default", ErrUnknownExport)
	}
	return c.srv.exports.Lookup(name)
}

// replyLookup answers why an export cannot be had.
func (c *conn) replyLookup(o nbdproto.Option, name string, err error) error {
	c.log.Debug("nbd export refused", "name", name[:min(len(name), 256)], "error", err)
	var np *NotPrimaryError
	switch {
	case errors.As(err, &np):
		return c.replyText(o, nbdproto.RepErrPolicy, np.Error())
	case errors.Is(err, ErrUnknownExport):
		return c.replyText(o, nbdproto.RepErrUnknown, err.Error())
	case errors.Is(err, blockdev.ErrNotPrimary):
		return c.replyText(o, nbdproto.RepErrPolicy, err.Error())
	}
	return c.replyText(o, nbdproto.RepErrPlatform, err.Error())
}

// choose fixes the export that the connection is for.
func (c *conn) choose(name string, e Export) {
	c.name, c.export, c.size, c.readOnly = name, e, e.Size(), e.ReadOnly()
	c.srv.settle(c)
}

// optExportName is the old way to begin: there is no answer but success, so a refusal hangs up.
func (c *conn) optExportName(o option, noZeroes bool) (done bool, err error) {
	name := string(o.data)
	if len(name) > nbdproto.MaxName {
		return false, fmt.Errorf("export name of %d bytes", len(name))
	}
	e, err := c.lookup(name)
	if err != nil {
		return false, fmt.Errorf("export %.256q: %w", name, err)
	}
	c.choose(name, e)
	b := binary.BigEndian.AppendUint64(nil, uint64(c.size))
	b = binary.BigEndian.AppendUint16(b, uint16(serverFlags(e, c.structured)))
	if !noZeroes {
		b = append(b, make([]byte, nbdproto.ExportNamePad)...)
	}
	_, err = c.nc.Write(b)
	return err == nil, err
}

func (c *conn) optList(o option) error {
	if len(o.data) != 0 {
		return c.replyText(o.code, nbdproto.RepErrInvalid, "this option takes no data")
	}
	var b []byte
	for _, name := range c.srv.exports.Names() {
		entry := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
		b = nbdproto.AppendOptReply(b, o.code, nbdproto.RepServer, append(entry, name...))
	}
	_, err := c.nc.Write(nbdproto.AppendOptReply(b, o.code, nbdproto.RepAck, nil))
	return err
}

// optInfo answers INFO and GO; after a successful GO the transmission phase begins.
func (c *conn) optInfo(o option) (done bool, err error) {
	p := parser{rest: o.data}
	name := p.string(int(p.uint32()))
	wants := p.take(2 * int(p.uint16()))
	switch {
	case p.tooBig:
		return false, c.replyText(o.code, nbdproto.RepErrTooBig, "the export name is too long")
	case p.bad || len(p.rest) != 0:
		return false, c.replyText(o.code, nbdproto.RepErrInvalid, "lengths do not add up")
	}
	e, err := c.lookup(name)
	if err != nil {
		return false, c.replyLookup(o.code, name, err)
	}
	size := e.Size()
	if o.code == nbdproto.OptGo {
		c.choose(name, e)
		size = c.size
	}
	b := c.infoReplies(o.code, name, wants, size, e)
	_, err = c.nc.Write(nbdproto.AppendOptReply(b, o.code, nbdproto.RepAck, nil))
	return o.code == nbdproto.OptGo && err == nil, err
}

// infoReplies tells size and flags, the block sizes, and the name and a description to who asked for them.
func (c *conn) infoReplies(o nbdproto.Option, name string, wants []byte, size int64, e Export) []byte {
	be, flags := binary.BigEndian, serverFlags(e, c.structured)
	info := be.AppendUint16(nil, uint16(nbdproto.InfoExport))
	info = be.AppendUint64(info, uint64(size))
	info = be.AppendUint16(info, uint16(flags))
	b := nbdproto.AppendOptReply(nil, o, nbdproto.RepInfo, info)

	info = be.AppendUint16(nil, uint16(nbdproto.InfoBlockSize))
	info = be.AppendUint32(info, 1)
	info = be.AppendUint32(info, blockdev.BlockSize)
	info = be.AppendUint32(info, uint32(c.srv.cfg.MaxPayload))
	b = nbdproto.AppendOptReply(b, o, nbdproto.RepInfo, info)

	asked := func(i nbdproto.Info) bool {
		for w := wants; len(w) > 0; w = w[2:] {
			if nbdproto.Info(be.Uint16(w)) == i {
				return true
			}
		}
		return false
	}
	if asked(nbdproto.InfoName) {
		info = append(be.AppendUint16(nil, uint16(nbdproto.InfoName)), name...)
		b = nbdproto.AppendOptReply(b, o, nbdproto.RepInfo, info)
	}
	if d, ok := e.(Describer); ok && asked(nbdproto.InfoDescription) {
		text := d.Describe()
		info = append(be.AppendUint16(nil, uint16(nbdproto.InfoDescription)), text[:min(len(text), nbdproto.MaxName)]...)
		b = nbdproto.AppendOptReply(b, o, nbdproto.RepInfo, info)
	}
	return b
}

// serverFlags says what the export can do.
func serverFlags(e Export, structured bool) nbdproto.TransFlags {
	f := nbdproto.HasFlags | nbdproto.SendFlush | nbdproto.SendFUA | nbdproto.SendTrim | nbdproto.SendWriteZeroes |
		nbdproto.CanMultiConn | nbdproto.SendCache | nbdproto.SendFastZero
	if structured {
		f |= nbdproto.SendDF
	}
	if e.ReadOnly() {
		f |= nbdproto.ReadOnly
	}
	return f
}
