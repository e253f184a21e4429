package cluster

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
)

// A large batch goes into the log compressed: its commands are much alike, and a thousand promotions, which have 430 KB, are then so
// few that one entry holds them and a slow line carries it in time. What it unpacks to is the batch as it would be without; every
// node unpacks the same bytes, so all apply the same.

// packFrom is how many bytes a batch has at least that is packed: less is as well read in the log as it is.
const packFrom = 4 << 10

// maxUnpacked bounds what a packed command comes to (R28). A longer one is not packed, and nobody's.
const maxUnpacked = 8 << 20

// packed is the entry that holds a command which Encode made of b; nil: it is to stay as it is.
func packed(c *Command, b []byte) []byte {
	if len(c.Batch) == 0 || len(b) < packFrom || len(b) > maxUnpacked {
		return nil
	}
	var into bytes.Buffer
	w, err := flate.NewWriter(&into, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	out, err2 := json.Marshal(Command{Format: commandPacked, By: c.By, AtMillis: c.AtMillis, Packed: into.Bytes()})
	if err != nil || err2 != nil {
		panic(fmt.Sprintf("cluster: pack a command of %d bytes: %v, %v", len(b), err, err2)) // memory only: cannot happen
	}
	if len(out) >= len(b) {
		return nil
	}
	return out
}

// unpacked is the encoded command in a packed one.
func unpacked(b []byte) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxUnpacked+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("unpack a command of %d bytes: %w", len(b), err)
	case len(out) > maxUnpacked:
		return nil, fmt.Errorf("unpack a command of %d bytes: it exceeds %d bytes", len(b), maxUnpacked)
	}
	return out, nil
}

// objects is how many parts an encoded command has, at most.
func objects(b []byte) int { return bytes.Count(b, []byte("{")) }
