// Package wallclock gives daemons of a laboratory a clock of their own that can be stepped, while the machine's is never
// set: Build makes a haclusterd whose time.Now, that of the standard library and all that uses it, adds the seconds that a
// small file holds. What such a clock does to a program is what a step of CLOCK_REALTIME does: the monotonic part of a
// time.Time stays as it is, and so do CLOCK_MONOTONIC, CLOCK_BOOTTIME and all timers.
//
//	err := wallclock.Build(ctx, dir)      dir/haclusterd; the sources are those of the current folder
//	wallclock.Create(file)                and start it with Env(file)
//	wallclock.Step(file, -time.Hour)      from now on
//	wallclock.Seen(file)                  how often it has read the clock since, and was wrong
package wallclock

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The file: seconds that are added, then how often a time that is not right was read; 8 bytes each.
const (
	fileSize = 16
	variable = "HACLUSTER_LAB_CLOCK" // names the file
)

// reading is the line of time.Now that reads the clock, in go1.25 and go1.26.
const reading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"

// added goes into package time, which may import next to nothing.
const added = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var labClock = func() *[2]int64 {
	path, ok := syscall.Getenv("` + variable + `")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("` + variable + `: " + err.Error())
	}
	defer syscall.Close(fd)
	p, err := syscall.Mmap(fd, 0, 16, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		panic("` + variable + `: " + err.Error())
	}
	return (*[2]int64)(unsafe.Pointer(&p[0]))
}()

func labStep() int64 {
	if labClock == nil {
		return 0
	}
	by := atomic.LoadInt64(&labClock[0])
	if by != 0 {
		atomic.AddInt64(&labClock[1], 1)
	}
	return by
}
`

// Build makes dir/haclusterd. It takes a minute the first time: everything uses package time.
func Build(ctx context.Context, dir string) error {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("ask go for its root: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		return err
	}
	if strings.Count(string(text), reading) != 1 {
		return fmt.Errorf("time.Now of this Go reads the clock in another way than expected: adapt package wallclock to %s", filepath.Join(src, "time.go"))
	}
	work, err := os.MkdirTemp("", "hacluster-clock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	overlay := map[string]map[string]string{"Replace": {}}
	for name, content := range map[string]string{"time.go": strings.Replace(string(text), reading, reading+"\tsec += labStep()\n", 1), "lab.go": added} {
		at := filepath.Join(work, name)
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			return err
		}
		overlay["Replace"][filepath.Join(src, name)] = at
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	list := filepath.Join(work, "overlay.json")
	if err := os.WriteFile(list, b, 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-overlay", list, "-o", filepath.Join(dir, "haclusterd"), "hacluster/cmd/haclusterd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build a daemon whose clock can be stepped, in the folder of the sources: %w: %s", err, out)
	}
	return nil
}

// Env is what a daemon is started with.
func Env(file string) string { return variable + "=" + file }

// Create makes a clock that is right, unless there is one.
func Create(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(fileSize)
}

// Step has the clock be off by so much from now on, in whole seconds.
func Step(file string, by time.Duration) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by/time.Second)), 0)
	return err
}

// Seen is how often the daemon has read a time that is not right.
func Seen(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if len(b) != fileSize {
		return 0, fmt.Errorf("%s has %d bytes, %d are expected", file, len(b), fileSize)
	}
	return int64(binary.NativeEndian.Uint64(b[8:])), nil
}
