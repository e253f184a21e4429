package main

import (
	"os"
	"strings"
	"testing"
)

// say calls the program.
func say(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = dispatch(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestHelpNamesEveryCommandForPeople(t *testing.T) {
	code, out, _ := say(t, "help")
	if code != 0 {
		t.Fatal(code)
	}
	inner := map[string]bool{"cell": true, "guard": true, "wire": true}
	for name := range commands() {
		if strings.Contains(out, "  lab "+name) == inner[name] {
			t.Errorf("%s: in the help %v", name, !inner[name])
		}
	}
}

func TestWrongUsage(t *testing.T) {
	t.Setenv("HACLUSTER_LABS", t.TempDir())
	for _, words := range []string{"fly", "cut alpha", "kill --lab", "loss alpha beta much", "run nonsense", "run", "up now", "disk alpha nose eio", "powercut alpha soon", "delay alpha long"} {
		if code, _, errs := say(t, strings.Fields(words)...); code != 2 || errs == "" {
			t.Errorf("lab %s: exit code %d, %q", words, code, errs)
		}
	}
}

func TestWithoutALab(t *testing.T) {
	t.Setenv("HACLUSTER_LABS", t.TempDir())
	if code, _, errs := say(t, "cut", "alpha", "beta", "--lab", "nobody"); code != 1 || !strings.Contains(errs, "scripts/lab up") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if code, out, errs := say(t, "list"); code != 0 || !strings.Contains(out, "kill-primary") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// Without root there is no lab, and that is said as a skip, not as a failure.
func TestSkippedWhereItIsNotPermitted(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Setenv("PATH", "") // as good: the tools are missing
	}
	for _, command := range []string{"up", "matrix-ci"} {
		if code, _, errs := say(t, command); code != 3 || !strings.Contains(errs, "skipped") {
			t.Errorf("lab %s: exit code %d, %q", command, code, errs)
		}
	}
}
