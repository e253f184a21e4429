package config

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
)

// MaxPacked bounds the applied configuration as the cluster keeps it: with what else a change carries it must fit into
// one entry of the Raft log. A thousand volumes take a third of it.
const MaxPacked = 96 << 10

// Pack is the file's text as the cluster keeps it. The text itself, not what was read from it: each node evaluates it for
// itself, with its own name.
func (c *Config) Pack() ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(c.source)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("compress the configuration: %w", err)
	}
	if b.Len() > MaxPacked {
		return nil, fmt.Errorf("the configuration has %d bytes when compressed, the limit is %d", b.Len(), MaxPacked)
	}
	return b.Bytes(), nil
}

// Unpack gives the text back.
func Unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("read the applied configuration: %w", err)
	}
	src, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the applied configuration: %w", err)
	}
	if len(src) > MaxFile {
		return nil, fmt.Errorf("read the applied configuration: it is longer than %d bytes", MaxFile)
	}
	return src, nil
}

// With is another text read by the same node with the same flags. It says all that is wrong with it as Problems, and
// separately what is right and not supported yet.
func (c *Config) With(name string, src []byte) (next *Config, unsupported Problems, err error) {
	next, r := decode(name, src, Options{Node: c.Self, Insecure: c.Insecure, DataDir: c.dataDir, PKI: c.PKI})
	if next != nil {
		next.checkInsecure(&r.report)
	}
	if err := r.problems.sorted().err(); err != nil {
		return nil, nil, err
	}
	return next, next.unsupported().sorted(), nil
}

// Source is the text that c was read from.
func (c *Config) Source() []byte { return c.source }
