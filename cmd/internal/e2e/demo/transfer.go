package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"hacluster/blockdev"
	"hacluster/cmd/internal/e2e"
)

const (
	chunk    = 256 << 10
	inFlight = 8
)

// volume is what copying needs of an NBD client.
type volume interface {
	io.ReaderAt
	io.WriterAt
	Zero(r blockdev.Range, unmap bool) error
	Flush() error
}

// dataOf lists the chunks of a sparse file that hold data.
func dataOf(f *os.File, size int64) (chunks []blockdev.Range, err error) {
	for off := int64(0); ; {
		from, to, err := e2e.DataFrom(f, off, size)
		if err != nil || from == size {
			return chunks, err
		}
		for off = from / chunk * chunk; off < to; off += chunk {
			chunks = append(chunks, blockdev.Range{Off: off, Len: min(chunk, size-off)})
		}
	}
}

// copyIn writes an image to the beginning of the volume and makes it durable. half is called once, from a goroutine
// of its own, when half of it is there; copying goes on meanwhile.
func copyIn(ctx context.Context, dev volume, image string, size int64, half func() error) (written int64, err error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	chunks, err := dataOf(f, size)
	if err != nil {
		return 0, err
	}
	if err := dev.Zero(blockdev.Range{Len: size}, true); err != nil {
		return 0, fmt.Errorf("zero the place of the image: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight + 1)
	for i, r := range chunks {
		if i == len(chunks)/2 {
			g.Go(half)
		}
		written += r.Len
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p := make([]byte, r.Len)
			if _, err := f.ReadAt(p, r.Off); err != nil {
				return err
			}
			if _, err := dev.WriteAt(p, r.Off); err != nil {
				return fmt.Errorf("write the image: %w", err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return written, dev.Flush()
}

// copyOut reads the image back, compares it with what was put in, and leaves it in a file.
func copyOut(ctx context.Context, dev volume, image, out string, size int64) error {
	want, err := os.Open(image)
	if err != nil {
		return err
	}
	defer want.Close()
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for off := int64(0); off < size; off += chunk {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			got, was := make([]byte, min(chunk, size-off)), make([]byte, min(chunk, size-off))
			if _, err := dev.ReadAt(got, off); err != nil {
				return fmt.Errorf("read the image back: %w", err)
			}
			if _, err := want.ReadAt(was, off); err != nil {
				return err
			}
			if !bytes.Equal(got, was) {
				return fmt.Errorf("the image that was copied in is not what is read back between bytes %d and %d", off, off+int64(len(got)))
			}
			if bytes.Equal(got, make([]byte, len(got))) {
				return nil // stays a hole
			}
			_, err := f.WriteAt(got, off)
			return err
		})
	}
	return g.Wait()
}
