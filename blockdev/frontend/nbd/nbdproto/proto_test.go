package nbdproto

import (
	"encoding/hex"
	"testing"
)

// The bytes are those of the protocol's text, written out by hand.
func TestHeadersOnTheWire(t *testing.T) {
	req := Request{Magic: MagicRequest, Flags: CmdFUA | CmdNoHole, Cmd: CmdWriteZeroes, Cookie: 0x0102030405060708, Offset: 1 << 40, Len: 4096}
	opt := AppendOption(nil, OptGo, []byte{0xaa})
	rep := AppendOptReply(nil, OptGo, RepErrPolicy, []byte("no"))
	chunk := Chunk{Flags: ChunkDone, Type: ChunkOffsetData, Cookie: 9, Len: 520}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"request":      {AppendRequest(nil, req), "25609513" + "0003" + "0006" + "0102030405060708" + "0000010000000000" + "00001000"},
		"simple reply": {AppendSimple(nil, ENOSPC, 7), "67446698" + "0000001c" + "0000000000000007"},
		"chunk":        {AppendChunk(nil, chunk), "668e33ef" + "0001" + "0001" + "0000000000000009" + "00000208"},
		"option":       {opt, "49484156454f5054" + "00000007" + "00000001" + "aa"},
		"option reply": {rep, "0003e889045565a9" + "00000007" + "80000002" + "00000002" + "6e6f"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := ParseRequest(AppendRequest(nil, req)); got != req {
		t.Errorf("request %+v", got)
	}
	if got := ParseChunk(AppendChunk(nil, chunk)); got != chunk {
		t.Errorf("chunk %+v", got)
	}
	if got := ParseOption(opt); got != (OptionHeader{MagicOption, OptGo, 1}) {
		t.Errorf("option %+v", got)
	}
	if got := ParseOptReply(rep); got != (OptReplyHeader{MagicOptReply, OptGo, RepErrPolicy, 2}) || !got.Rep.IsError() {
		t.Errorf("option reply %+v", got)
	}
}

func TestUnknownErrnoHasAText(t *testing.T) {
	if s := Errno(4711).Error(); s != "error number 4711" {
		t.Error(s)
	}
}
