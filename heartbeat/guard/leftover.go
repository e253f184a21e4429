package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/resource/effect"
)

// without kills a resource that nobody holds any more.
func without(ctx context.Context, s effect.Spec, spare func(pid int) bool) error {
	if s.Kind == "exec" {
		return effect.End(ctx, unix.SIGKILL, spare, spare)
	}
	e, err := effect.New(s, slog.Default())
	if err != nil {
		return err
	}
	return e.Kill(ctx)
}

// mark is in the environment of everything that a guard of this folder starts.
func mark(dir string) string { return "HACLUSTER_GUARD=" + dir }

// The list of what runs lies in the folder from before each start until after the stop. It need not survive a loss of power: nor
// does what it names.
func listPath(dir string) string { return filepath.Join(dir, "guard.json") }

func writeList(dir string, all []effect.Spec) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	next := listPath(dir) + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("note what runs: %w", err)
	}
	if err := os.Rename(next, listPath(dir)); err != nil {
		return fmt.Errorf("note what runs: %w", err)
	}
	return nil
}

// clean ends what a guard before this one left behind, which was killed together with its holders.
func clean(ctx context.Context, dir string, log *slog.Logger) error {
	var all []effect.Spec
	b, err := os.ReadFile(listPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		log.Error("the list of what ran cannot be read: addresses and units in it stay as they are", "file", listPath(dir), "error", err)
	}
	var errs []error
	if err := killMarked(ctx, dir); err != nil {
		errs = append(errs, err)
	}
	for _, s := range all {
		log.Warn("left behind by a guard before this one: it is ended", "resource", s.String())
		if s.Kind != "exec" {
			errs = append(errs, without(ctx, s, nil))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("what a guard before this one left behind: %w", err)
	}
	return os.Remove(listPath(dir))
}

// killMarked kills every process that a guard of this folder started, as its environment tells, until none is left.
func killMarked(ctx context.Context, dir string) error {
	for {
		names, err := filepath.Glob("/proc/[0-9]*/environ")
		if err != nil {
			return err
		}
		left := 0
		for _, name := range names {
			b, err := os.ReadFile(name)
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil || pid == os.Getpid() || !bytes.Contains(append([]byte{0}, b...), []byte("\x00"+mark(dir)+"\x00")) {
				continue
			}
			left++
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if left == 0 {
			return nil
		}
		if !sleep(ctx, tickPause) {
			return fmt.Errorf("%d processes cannot be killed", left)
		}
	}
}
