// Command demo shows in under a minute what hacluster is for. It starts three daemons on loopback addresses of this
// machine, puts a real ext4 file system and a stream of writes on their volume, kills the serving daemon in the middle,
// and proves that nothing that was acknowledged is lost. No root is needed, nothing outside its temporary folder is
// touched, and nothing is left behind.
//
// Exit codes: 0 all is as promised, 1 something is not, and it says what.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hacluster/cmd/internal/e2e"
)

type options struct {
	bin, tree, keep string
	treeMiB         int64
	plant           bool
	limit           time.Duration
	writer          writerOptions
}

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`folder` of haclusterd and ha-admin")
	flag.StringVar(&o.tree, "tree", "", "`folder` whose files go into the file system (default: the source of the Go library)")
	flag.Int64Var(&o.treeMiB, "tree-mib", 64, "how many MiB of it")
	flag.StringVar(&o.keep, "keep", "", "work in this `folder`, and leave it behind")
	flag.BoolVar(&o.plant, "plant-lost-write", false, "undo one acknowledged write behind everybody's back: the demo must notice and fail")
	flag.DurationVar(&o.limit, "limit", 4*time.Minute, "give up after this time")
	o.writer.flags()
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // of a user, where mke2fs is
	if o.writer.record != "" {
		return exitCode(write(ctx, o.writer))
	}
	return exitCode(demo(ctx, o))
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	return 1
}

// demo prepares a folder and the cluster in it, tells the story, and cleans up whatever happened.
func demo(ctx context.Context, o options) (err error) {
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "hacluster-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if o.tree, err = treeOf(ctx, o.tree); err != nil {
		return err
	}
	c, err := e2e.New(e2e.Config{Dir: filepath.Join(dir, "c"), Bin: o.bin, RTO: rtoTarget.String(), Size: "1GiB"})
	if err != nil {
		return err
	}
	s := &story{o: o, dir: dir, cluster: c, began: time.Now()}
	defer func() {
		s.writer.stop()
		c.Close()
		if err != nil {
			c.ShowLogs(os.Stderr, 12)
		}
	}()
	if err := s.tell(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return err
	}
	s.table()
	return nil
}

// treeOf finds the source of the Go library: real files, some thousands, the same for everybody with this Go.
func treeOf(ctx context.Context, tree string) (string, error) {
	if tree != "" {
		return tree, nil
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its source tree (or name a folder with -tree): %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src"), nil
}
