// Program hadisk mounts a file system whose files are lost the way a disk loses them, for tests. See package mount for
// what it can do and for the commands of its control socket.
//
//	hadisk mount DIR --store STOREDIR --control SOCKET [--lenient] [--cache BYTES]
//	hadisk loop FILE
//
// mount prints "ready" when the file system is there, and serves until SIGTERM, SIGINT, the end of its parent, or until
// it is unmounted; then nothing is mounted any more. loop makes a block device of a file, prints its name, and ends; the
// device vanishes when its last user closes it. It waits on standard input meanwhile, so that somebody can open it first.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/lab/disk/mount"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hadisk:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 2 && args[0] == "mount":
		return serve(args[1], args[2:])
	case len(args) == 2 && args[0] == "loop":
		return loop(args[1])
	}
	return errors.New("usage: hadisk mount DIR --store STOREDIR --control SOCKET [--lenient] [--cache BYTES] | hadisk loop FILE")
}

func serve(dir string, args []string) error {
	cfg := mount.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flags := flag.NewFlagSet("mount", flag.ContinueOnError)
	flags.StringVar(&cfg.Store, "store", "", "folder where the bytes lie; nobody else may touch it")
	control := flags.String("control", "", "path of the control socket")
	flags.BoolVar(&cfg.Lenient, "lenient", false, "names become durable as on ext4: any flush carries them")
	flags.Int64Var(&cfg.Cache, "cache", 0, "bytes of memory for what is not flushed; default 256 MiB")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if cfg.Store == "" || *control == "" {
		return errors.New("--store and --control are wanted")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := os.Remove(*control); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ln, err := net.Listen("unix", *control)
	if err != nil {
		return err
	}
	defer ln.Close()
	m, err := mount.Open(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		<-m.Done()
		cancel()
	}()
	fmt.Println("ready")
	return errors.Join(m.Serve(ctx, ln), m.Close())
}

// loop shows a file as a block device, without the page cache between.
func loop(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer ctl.Close()
	for {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		cfg := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &cfg)
		if errors.Is(err, unix.EBUSY) {
			dev.Close()
			continue // somebody else was faster
		}
		if err != nil {
			dev.Close()
			return fmt.Errorf("make %s of %s: %w", name, path, err)
		}
		fmt.Println(name)
		_, err = io.Copy(io.Discard, os.Stdin) // its end: somebody else has it open, or it may go
		return errors.Join(err, dev.Close())
	}
}
