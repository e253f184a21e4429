package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/fence"
)

// deadMount is a folder of a file system whose server never answers.
func deadMount(t *testing.T) string {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("/dev/fuse: %v", err)
	}
	dir := t.TempDir()
	if err := unix.Mount("dead", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		unix.Close(fd)
		t.Skipf("mount: %v: to be root is wanted", err)
	}
	t.Cleanup(func() {
		unix.Close(fd) // whoever waits for an answer gets an error
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// What an agent's options name, or the agent, may lie where nobody answers: its limit ends that, and so does the end of ctx.
func TestFilesThatNeverAnswerAreNotWaitedFor(t *testing.T) {
	dead := deadMount(t)
	good := script(t, "exit 0")
	for name, call := range map[string]Call{
		"a secret": {Agent: good, Options: map[string]string{"password_file": dead + "/pw"}},
		"an agent": {Agent: dead + "/fence_x"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []time.Duration{second, time.Hour} {
				r := newRunner(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if limit == time.Hour {
					time.AfterFunc(second, cancel)
				}
				began := time.Now()
				call.Limit = limit
				got, why := r.Off(ctx, call)
				if took := time.Since(began); got != fence.Failed || took > 5*second {
					t.Errorf("limit %v: %s after %v: %s", limit, got, took, why)
				}
				if want := "does not answer"; limit == second && !strings.Contains(why, want) {
					t.Errorf("%q; want %q", why, want)
				}
				if n := len(holders(r.Dir)); n != 0 {
					t.Errorf("limit %v: %d holders are left", limit, n)
				}
				call.Limit = second
				if got, why := r.Status(t.Context(), call); got != fence.Failed && !(name == "a secret" && got == fence.NoStatus) {
					t.Errorf("limit %v: status: %s, %s", limit, got, why)
				}
			}
		})
	}
}

func TestPipeIsNoSecret(t *testing.T) {
	p := filepath.Join(t.TempDir(), "pw")
	if err := unix.Mkfifo(p, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got, why := newRunner(t).Off(t.Context(), Call{Agent: script(t, "exit 0"), Limit: time.Hour, Options: map[string]string{"password_file": p}})
	if got != fence.Failed || !strings.Contains(why, "no regular file") || time.Since(began) > 5*second {
		t.Errorf("%s after %v: %s", got, time.Since(began), why)
	}
}

// The program's description is asked for once for each of its versions.
func TestDescriptionIsReadAnewWhenTheProgramIsAnother(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen")
	text := `case $action in metadata) echo x >>` + seen + `; echo '<resource-agent name="x"><actions><action name="ACTION"/></actions></resource-agent>';; esac`
	path := script(t, strings.Replace(text, "ACTION", "off", 1))
	r := newRunner(t)
	has := func() bool {
		t.Helper()
		has, err := r.Has(t.Context(), Call{Agent: path, Limit: 5 * second}, "status")
		if err != nil {
			t.Fatal(err)
		}
		return has
	}
	for range 2 {
		if has() {
			t.Error("it has a status")
		}
	}
	if got := content(t, seen); got != "x\n" {
		t.Errorf("it was asked %d times", len(got)/2)
	}
	if err := os.Rename(script(t, strings.Replace(text, "ACTION", "status", 1)), path); err != nil {
		t.Fatal(err)
	}
	if !has() {
		t.Error("the new one has none")
	}
}
