package effect

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// needSystemd skips where systemd is not what runs the machine.
func needSystemd(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("no systemd runs this machine: /run/systemd/system is not there")
	}
}

func TestUnitStartsStopsAndIsKilled(t *testing.T) {
	needSystemd(t)
	const name = "hacluster-test.service"
	path := "/run/systemd/system/" + name
	if err := os.WriteFile(path, []byte("[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nRestart=always\nTimeoutStopSec=300\n"), 0o644); err != nil {
		t.Skip("no unit can be written: ", err)
	}
	t.Cleanup(func() { _ = os.Remove(path); _ = exec.Command("systemctl", "daemon-reload").Run() })
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e, _ := newEffect(t, Spec{Kind: "systemd", Name: name})
	if err := e.Monitor(within(t, 10*time.Second)); err == nil {
		t.Fatal("its monitor is content before it was started")
	}
	if err := e.Start(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := e.Monitor(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	if err := e.Stop(within(t, time.Second)); err == nil {
		t.Error("what ignores SIGTERM is said to have stopped")
	}
	if err := e.Kill(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := e.Monitor(within(t, 10*time.Second)); err == nil {
		t.Error("its monitor is content after the kill")
	}
}

// fakeCtl puts a systemctl on the PATH: what is said to it, and how the answers are taken, needs no systemd.
func fakeCtl(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/systemctl", []byte("#!/bin/sh\ncd "+dir+"\necho \"$@\" >>calls\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("CALLS", dir+"/calls")
}

func TestUnitThatFailsIsTold(t *testing.T) {
	fakeCtl(t, "echo 'Unit a.service not found.' >&2; exit 5\n")
	e := &unit{name: "a.service"}
	if err := e.Start(within(t, 10*time.Second)); err == nil || !strings.Contains(err.Error(), "systemctl start a.service: exit status 5: Unit a.service not found.") {
		t.Error(err)
	}
}

func TestUnitIsKilledUntilItIsGone(t *testing.T) {
	fakeCtl(t, `case $1 in show) if [ $(grep -c ^kill calls) -ge 3 ]; then echo inactive; else echo deactivating; fi;; esac`+"\n")
	e := &unit{name: "a.service"}
	if err := e.Kill(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(os.Getenv("CALLS"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b), "stop --no-block a.service\nkill --signal=SIGKILL a.service\n") {
		t.Errorf("calls:\n%s", b)
	}
}

func TestSystemctlThatHangsIsGivenUp(t *testing.T) {
	fakeCtl(t, "exec sleep 300\n")
	e := &unit{name: "a.service"}
	began := time.Now()
	for name, err := range map[string]error{"start": e.Start(within(t, 100*time.Millisecond)), "monitor": e.Monitor(within(t, 100*time.Millisecond)), "kill": e.Kill(within(t, 100*time.Millisecond))} {
		if err == nil {
			t.Errorf("%s returned nil", name)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
}
