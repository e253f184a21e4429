package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"hacluster/blockdev/backend/filedev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdtest"
	"hacluster/cmd/internal/e2e"
)

// aloneSize is that of the default volume.
const aloneSize = 1 << 30

// aloneWorkers is how many operations of a disk that is waited for run at a time, as many as a replica's.
const aloneWorkers = 64

// serveAlone serves one file by the NBD server that a node has, without any of what mirrors it.
func serveAlone(dir string, cfg e2e.Config) error {
	mode, ok := map[string]filedev.Mode{"auto": filedev.Auto, "buffered": filedev.Buffered, "direct": filedev.Direct}[cfg.IO]
	if !ok {
		return fmt.Errorf("-io %q: want auto, buffered or direct", cfg.IO)
	}
	path := filepath.Join(cfg.Disks, "alone.img")
	dev, err := filedev.Open(path, filedev.Config{Size: aloneSize, Mode: mode, Create: true})
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer dev.Close()
	workers := aloneWorkers
	if dev.Fast() {
		workers = 0
	}
	e := nbdtest.SyncExport(dev, workers)
	defer e.Close()
	exports := nbdtest.NewExports()
	exports.Serve(e2e.Volume, e)
	server, err := nbd.New(exports, nbd.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	sock := filepath.Join(dir, "nbd.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(context.Background(), l) }()
	fmt.Printf("uri=nbd+unix:///%s?socket=%s\npids=%d\n", e2e.Volume, sock, os.Getpid())
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, server.Close(), <-ended)
}
