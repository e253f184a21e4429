package nbd

import (
	"encoding/binary"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// optMeta answers LIST_META_CONTEXT and SET_META_CONTEXT. base:allocation is the only context.
func (c *conn) optMeta(o option) error {
	set := o.code == nbdproto.OptSetMetaContext
	if set {
		// Whatever was negotiated before ends here, also when this attempt fails.
		c.allocation, c.contextName = false, ""
		if !c.structured {
			return c.replyText(o.code, nbdproto.RepErrInvalid, "negotiate structured replies first")
		}
	}
	p := parser{rest: o.data}
	name := p.string(int(p.uint32()))
	count := p.uint32()
	found := count == 0 && !set && !p.bad // LIST without a query means all
	for range count {
		q := p.string(int(p.uint32()))
		if p.bad { // ends the loop early, however large count claims to be
			break
		}
		found = found || q == nbdproto.BaseAllocation || (!set && q == "base:")
	}
	switch {
	case p.tooBig:
		return c.replyText(o.code, nbdproto.RepErrTooBig, "a name is too long")
	case p.bad || len(p.rest) != 0:
		return c.replyText(o.code, nbdproto.RepErrInvalid, "lengths do not add up")
	}
	if _, err := c.lookup(name); err != nil {
		return c.replyLookup(o.code, name, err)
	}
	var b []byte
	if found {
		id := uint32(0)
		if set {
			c.allocation, c.contextName, id = true, name, contextID
		}
		data := append(binary.BigEndian.AppendUint32(nil, id), nbdproto.BaseAllocation...)
		b = nbdproto.AppendOptReply(b, o.code, nbdproto.RepMetaContext, data)
	}
	_, err := c.nc.Write(nbdproto.AppendOptReply(b, o.code, nbdproto.RepAck, nil))
	return err
}
