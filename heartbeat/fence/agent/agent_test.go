package agent

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/fence"
)

// The test's own binary is holder, and a daemon that runs an agent.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		if err := Hold(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 3 && os.Args[1] == "daemon" {
		r := &Runner{Holder: []string{os.Args[0], "hold"}, Dir: os.Args[2]}
		fmt.Println(r.Run(context.Background(), Call{Agent: os.Args[3], Action: "off", Limit: time.Hour}).Why())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func newRunner(t *testing.T) *Runner {
	t.Helper()
	return &Runner{Holder: []string{os.Args[0], "hold"}, Dir: t.TempDir()}
}

// script is an agent: a shell script that has read its options into the variables $action, $nodename and so on.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fence_test")
	head := "#!/bin/sh\nwhile read -r l; do case $l in ''|\\#*) ;; *=*) eval \"${l%%=*}=\\${l#*=}\";; esac; done\n"
	if err := os.WriteFile(path, []byte(head+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

const second = time.Second

func TestOptionsComeOnStandardInputAlone(t *testing.T) {
	dir := t.TempDir()
	pw := filepath.Join(dir, "pw")
	if err := os.WriteFile(pw, []byte("hunter=2 !#\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(dir, "fence_seen")
	seen := filepath.Join(dir, "seen")
	text := "#!/bin/sh\ncat >" + seen + "\ntr '\\0' ' ' </proc/$$/cmdline >" + seen + ".argv\ncat /proc/$$/environ /proc/$PPID/environ /proc/$PPID/cmdline >" + seen + ".env\n"
	if err := os.WriteFile(agent, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	res := newRunner(t).Run(t.Context(), Call{Agent: agent, Action: "off", Node: "alpha", Limit: 10 * second,
		Options: map[string]string{"ip": "10.9.0.1", "password_file": pw, "identity_file": "/root/.ssh/id"}})
	if res.Err != nil || res.Exit != 0 {
		t.Fatal(res.Why())
	}
	if got, want := content(t, seen), "identity_file=/root/.ssh/id\nip=10.9.0.1\npassword=hunter=2 !#\nnodename=alpha\naction=off\n"; got != want {
		t.Errorf("the agent read\n%swant\n%s", got, want)
	}
	for _, f := range []string{".argv", ".env"} {
		if got := content(t, seen+f); got == "" || strings.Contains(got, "hunter") {
			t.Errorf("%s: %q", f, got)
		}
	}
	if got := strings.Fields(content(t, seen+".argv")); len(got) != 2 {
		t.Errorf("arguments: %q", got)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const metadata = `case $action in metadata) echo '<?xml version="1.0"?><resource-agent name="x"><actions><action name="off"/><action name="%s" automatic="0"/></actions></resource-agent>'; exit 0;; esac
`

func TestExitCodesAreAnswers(t *testing.T) {
	withStatus, without := fmt.Sprintf(metadata, "status"), fmt.Sprintf(metadata, "on")
	for name, c := range map[string]struct {
		text        string
		off, status fence.Answer
		why         string
	}{
		"on":                     {withStatus + "exit 0", fence.Done, fence.IsOn, ""},
		"off":                    {withStatus + "[ $action = off ] || exit 2", fence.Done, fence.IsOff, ""},
		"fails":                  {withStatus + "echo no such plug >&2; exit 1", fence.Failed, fence.Failed, "exit code 1: no such plug"},
		"off is not its status":  {withStatus + "exit 2", fence.Failed, fence.IsOff, ""},
		"no status":              {without + "exit 0", fence.Done, fence.NoStatus, ""},
		"tells nothing":          {"exit 0", fence.Done, fence.IsOn, ""}, // no metadata either: its status decides
		"broken metadata, is on": {"[ $action = metadata ] && echo '<actions'; exit 0", fence.Done, fence.IsOn, ""},
		"is killed":              {withStatus + "kill -9 $$", fence.Failed, fence.Failed, "signal: killed"},
		"does not read":          {"exec 0<&-; exit 0", fence.Done, fence.IsOn, ""},
	} {
		r, call := newRunner(t), Call{Agent: script(t, c.text), Node: "alpha", Limit: 10 * second}
		off, why := r.Off(t.Context(), call)
		if off != c.off || c.why != "" && why != c.why {
			t.Errorf("%s: off: %s, %q", name, off, why)
		}
		if status, why := r.Status(t.Context(), call); status != c.status {
			t.Errorf("%s: status: %s, %q", name, status, why)
		}
	}
}

func TestMetadataIsAskedAgainOfAnAgentThatWasChanged(t *testing.T) {
	r, call := newRunner(t), Call{Agent: script(t, fmt.Sprintf(metadata, "on")+"exit 2"), Limit: 10 * second}
	if a, _ := r.Status(t.Context(), call); a != fence.NoStatus {
		t.Fatal(a)
	}
	b := strings.Replace(content(t, call.Agent), `name="on"`, `name="status"`, 1)
	if err := os.WriteFile(call.Agent, []byte(b), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(call.Agent, time.Now(), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if a, _ := r.Status(t.Context(), call); a != fence.IsOff {
		t.Fatal(a)
	}
}

// lonely is a command that nobody else runs.
func lonely() string { return fmt.Sprintf("sleep %d", 1_000_000+rand.IntN(1_000_000_000)) }

// count is how many processes run a command, or have it among their arguments.
func count(command string) (n int) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(bytes.ReplaceAll(b, []byte{0}, []byte(" ")), []byte(command)) {
			n++
		}
	}
	return n
}

// family is a text by which an agent leaves behind all kinds of children, and tells how many live.
func family() (text string, left func() int) {
	sleep := lonely()
	text = strings.ReplaceAll(`
SLEEP &
(setsid SLEEP &)
(setsid sh -c 'SLEEP & SLEEP' >/dev/null 2>&1 </dev/null &)
(env -i PATH=$PATH setsid sh -c 'setsid SLEEP &' &)
(trap '' TERM HUP INT; SLEEP) &
sh -c 'kill -STOP $$; SLEEP' &
`, "SLEEP", sleep)
	return text, func() int { return count(sleep) }
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestNothingOfAHungAgentSurvives(t *testing.T) {
	text, left := family()
	r, call := newRunner(t), Call{Agent: script(t, text+"echo before; sleep 86400; exit 0"), Limit: second}
	began := time.Now()
	off, why := r.Off(t.Context(), call)
	if off != fence.Failed || !strings.Contains(why, "it was killed: it took longer than 1s") || !strings.Contains(why, "before") {
		t.Errorf("%s, %q", off, why)
	}
	if took := time.Since(began); took < second || took > 4*second {
		t.Errorf("that took %v", took)
	}
	if n := left(); n != 0 {
		t.Errorf("%d processes survive", n)
	}
}

func TestNothingOfAnAgentThatEndedSurvives(t *testing.T) {
	text, left := family()
	r, call := newRunner(t), Call{Agent: script(t, text+"exit 0"), Limit: 10 * second}
	began := time.Now()
	if off, why := r.Off(t.Context(), call); off != fence.Done {
		t.Errorf("%s, %q", off, why)
	}
	if n, took := left(), time.Since(began); n != 0 || took > 5*second {
		t.Errorf("%d processes survive, after %v", n, took)
	}
}

func TestAgentIsKilledWhenItIsNotToGoOn(t *testing.T) {
	text, left := family()
	r, call := newRunner(t), Call{Agent: script(t, text+"sleep 86400"), Limit: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		await(t, "it runs", func() bool { return left() > 4 })
		cancel()
	}()
	if off, why := r.Off(ctx, call); off != fence.Failed || !strings.Contains(why, "it was not to go on") {
		t.Errorf("%s, %q", off, why)
	}
	if n := left(); n != 0 {
		t.Errorf("%d processes survive", n)
	}
}

// holders are the processes that hold agents of a folder.
func holders(dir string) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range names {
		b, _ := os.ReadFile(name)
		cmd, _ := os.ReadFile(filepath.Dir(name) + "/cmdline")
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if bytes.Contains(b, []byte(mark(dir)+":")) && bytes.HasSuffix(cmd, []byte("\x00hold\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Without the one that keeps the environment clean, which only a holder finds.
const marked = "SLEEP &\n(setsid sh -c 'SLEEP & SLEEP' &)\n(setsid SLEEP &)\n"

func TestAgentWhoseHolderIsKilledIsKilledToo(t *testing.T) {
	sleep := lonely()
	left := func() int { return count(sleep) }
	r, call := newRunner(t), Call{Agent: script(t, strings.ReplaceAll(marked, "SLEEP", sleep)+"sleep 86400"), Limit: time.Hour}
	go func() {
		await(t, "it runs", func() bool { return left() > 3 && len(holders(r.Dir)) == 1 })
		_ = unix.Kill(holders(r.Dir)[0], unix.SIGKILL)
	}()
	if off, why := r.Off(t.Context(), call); off != fence.Failed || !strings.Contains(why, "the process that holds it") {
		t.Errorf("%s, %q", off, why)
	}
	if n := left(); n != 0 {
		t.Errorf("%d processes survive", n)
	}
}

func TestAgentWhoseDaemonIsKilledIsKilledToo(t *testing.T) {
	text, left := family()
	dir, agent := t.TempDir(), script(t, text+"sleep 86400")
	daemon := exec.Command(os.Args[0], "daemon", dir, agent)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return left() > 4 })
	_ = daemon.Process.Kill()
	_ = daemon.Wait()
	await(t, "nothing is left", func() bool { return left() == 0 && len(holders(dir)) == 0 })
}

func TestWhatOutlivedDaemonAndHolderIsCleanedAway(t *testing.T) {
	sleep := lonely()
	dir, agent := t.TempDir(), script(t, strings.ReplaceAll(marked, "SLEEP", sleep)+"sleep 86400")
	daemon := exec.Command(os.Args[0], "daemon", dir, agent)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return count(sleep) > 3 && len(holders(dir)) == 1 })
	holder := holders(dir)[0]
	_ = unix.Kill(holder, unix.SIGSTOP) // it cannot kill
	_ = daemon.Process.Kill()
	_ = daemon.Wait()
	_ = unix.Kill(holder, unix.SIGKILL)
	await(t, "the holder is gone", func() bool { return len(holders(dir)) == 0 })
	if count(sleep) == 0 {
		t.Fatal("nothing outlived them: nothing is tested")
	}
	if err := Clean(t.Context(), t.TempDir()); err != nil || count(sleep) == 0 {
		t.Fatalf("another daemon's agents: %v", err)
	}
	if err := Clean(t.Context(), dir); err != nil || count(sleep) != 0 {
		t.Errorf("%d processes survive: %v", count(sleep), err)
	}
}

func TestOutputIsBoundedAndHoldsNoSecrets(t *testing.T) {
	r := newRunner(t)
	secret := "tr0ub4dor&3"
	call := Call{Agent: script(t, `i=0; while [ $i -lt 2000 ]; do echo "user=$login password=$password and more" >&2; echo "$password$password$password"; i=$((i+1)); done; echo "last words"; exit 1`),
		Action: "off", Options: map[string]string{"password": secret, "login": "admin"}, Limit: 30 * second}
	res := r.Run(t.Context(), call)
	if res.Exit != 1 || len(res.Text) > fence.MaxText || res.Text == "" || strings.Contains(res.Text, "\n") {
		t.Errorf("exit code %d, %d bytes: %q", res.Exit, len(res.Text), res.Text)
	}
	for n := 4; n <= len(secret); n++ { // not even a half of it
		if strings.Contains(res.Text, secret[:n]) || strings.Contains(res.Text, secret[len(secret)-n:]) {
			t.Fatalf("%q is in %q", secret[:n], res.Text)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call.Agent = script(t, "head -c 300000000 /dev/zero; exit 1")
	if res = r.Run(t.Context(), call); res.Exit != 1 || len(res.Text) > fence.MaxText {
		t.Errorf("exit code %d, %d bytes: %v", res.Exit, len(res.Text), res.Err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestWhatCannotBeRunIsRefusedWithTheReason(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := script(t, "exit 0")
	for _, c := range []struct {
		agent   string
		options map[string]string
		want    string
	}{
		{"fence_of_nobody", nil, "agent fence_of_nobody is not installed on this node"},
		{dir + "/none", nil, "no such file"},
		{dir, nil, "no program"},
		{write("text", "x", 0o600), nil, "no program"},
		{write("format", "\x00\x01", 0o700), nil, "exec format error"},
		{good, map[string]string{"password_file": dir + "/none"}, "option password_file: open"},
		{good, map[string]string{"password_file": write("open", "x\n", 0o644)}, "everybody can read"},
		{good, map[string]string{"password_file": write("empty", "", 0o600)}, "has no first line"},
		{good, map[string]string{"password_file": write("long", strings.Repeat("x", 2*MaxOption), 0o600)}, "at most 1024 bytes"},
		{good, map[string]string{"password_file": dir}, "no regular file"},
		{good, map[string]string{"ip": "10.0.0.1\naction=on"}, "one line"},
		{good, map[string]string{"action": "on"}, "leave it out"},
	} {
		res := newRunner(t).Run(t.Context(), Call{Agent: c.agent, Action: "off", Options: c.options, Limit: 5 * second})
		if res.Exit != -1 || !strings.Contains(res.Why(), c.want) {
			t.Errorf("%s %v: exit code %d, %q; want %q", c.agent, c.options, res.Exit, res.Why(), c.want)
		}
	}
}

func TestSecretOptions(t *testing.T) {
	for name, want := range map[string]bool{"password": true, "passwd": true, "snmp_priv_passwd": true, "token": true, "community": true, "secret_key": true,
		"ip": false, "login": false, "identity_file": false, "passwd_script": false, "password_file": false, "port": false} {
		if IsSecret(name) != want {
			t.Errorf("%s: secret %t", name, !want)
		}
	}
	for name, want := range map[string]string{"password_file": "password", "snmp_priv_passwd_file": "snmp_priv_passwd", "identity_file": "", "status_file": "", "password": ""} {
		if got, ok := SecretFile(name); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %t", name, got, ok)
		}
	}
}

// debian is an agent of Debian's fence-agents.
func debian(t *testing.T, name string) string {
	t.Helper()
	p, err := Find(name)
	if err != nil {
		t.Skipf("%v (Debian: fence-agents; make setup installs it)", err)
	}
	return p
}

func TestFenceDummyOfDebian(t *testing.T) {
	file := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(file, []byte("on"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, call := newRunner(t), Call{Agent: debian(t, "fence_dummy"), Node: "alpha", Options: map[string]string{"status_file": file, "power_timeout": "1"}, Limit: 30 * second}
	if a, why := r.Status(t.Context(), call); a != fence.IsOn {
		t.Fatalf("%s: %s", a, why)
	}
	if a, why := r.Off(t.Context(), call); a != fence.Done {
		t.Fatalf("%s: %s", a, why)
	}
	if a, why := r.Status(t.Context(), call); a != fence.IsOff || content(t, file) != "off" {
		t.Fatalf("%s: %s, and the file has %q", a, why, content(t, file))
	}
	call.Options["type"] = "fail"
	if a, why := r.Off(t.Context(), call); a != fence.Failed || why == "" {
		t.Fatalf("%s: %s", a, why)
	}
}

func TestFenceKdumpOfDebianHasNoStatus(t *testing.T) {
	r, call := newRunner(t), Call{Agent: debian(t, "fence_kdump"), Node: "alpha", Limit: 30 * second}
	if a, why := r.Status(t.Context(), call); a != fence.NoStatus {
		t.Fatalf("%s: %s", a, why)
	}
}
