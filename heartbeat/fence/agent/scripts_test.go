package agent

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/heartbeat/fence"
)

// ours is the path of an agent of this repository.
func ours(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../../scripts/fence/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOurAgentsDescribeThemselves(t *testing.T) {
	for name, want := range map[string][2]bool{"fence_noop": {true, false}, "fence_lab": {true, true}, "fence_ssh": {true, false}} { // off, status
		r := newRunner(t)
		for i, action := range []string{"off", "status"} {
			has, err := r.Has(t.Context(), Call{Agent: ours(t, name), Limit: 10 * second}, action)
			if err != nil || has != want[i] {
				t.Errorf("%s: has %s: %t, %v", name, action, has, err)
			}
		}
		for _, action := range []string{"off", "monitor", "on", "dance"} {
			if res := r.Run(t.Context(), Call{Agent: ours(t, name), Action: action, Limit: 10 * second}); res.Err != nil || res.Exit != 1 || res.Text == "" {
				t.Errorf("%s %s without its options: %d, %s", name, action, res.Exit, res.Why())
			}
		}
	}
}

func TestNoopRefusesWithoutTheWord(t *testing.T) {
	r, call := newRunner(t), Call{Agent: ours(t, "fence_noop"), Node: "alpha", Limit: 10 * second}
	for _, pretend := range []string{"", "no", "yes please"} {
		call.Options = map[string]string{"pretend": pretend}
		if got, why := r.Off(t.Context(), call); got != fence.Failed || !strings.Contains(why, "pretend=yes") {
			t.Errorf("pretend=%s: %s, %s", pretend, got, why)
		}
	}
	call.Options = map[string]string{"pretend": "yes"}
	if got, why := r.Off(t.Context(), call); got != fence.Done {
		t.Errorf("%s, %s", got, why)
	}
	if got, why := r.Status(t.Context(), call); got != fence.NoStatus {
		t.Errorf("its status: %s, %s", got, why)
	}
}

// shells checks our scripts as far as there is something to check them with.
func TestOurAgentsAreCleanShell(t *testing.T) {
	check, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed: apt-get install shellcheck")
	}
	all, err := filepath.Glob("../../../scripts/fence/fence_*")
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v", all, err)
	}
	if out, err := exec.Command(check, all...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// sshd is a real one, on a loopback address, with keys of its own; what it is told to do is done to it.
type sshd struct {
	cmd     *exec.Cmd
	done    chan struct{}
	options map[string]string
}

func startSSHD(t *testing.T) *sshd {
	t.Helper()
	return startSSHDAt(t, "127.0.0.1", nil)
}

// startSSHDIn starts one in a network namespace, which a link leads to.
func startSSHDIn(t *testing.T, ns, out string) *sshd {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil || os.Getuid() != 0 {
		t.Skip("ip (Debian: iproute2), and to be root, is wanted for a network namespace")
	}
	if msg, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
		t.Skipf("there are no network namespaces: %v: %s", err, msg)
	}
	t.Cleanup(func() { mustRun(t, "ip link del "+out+"; ip netns del "+ns) })
	mustRun(t, fmt.Sprintf("ip link add %s type veth peer name in netns %s && ip addr add 198.18.93.1/30 dev %[1]s && ip link set %[1]s up", out, ns))
	mustRun(t, fmt.Sprintf("ip -n %s addr add 198.18.93.2/30 dev in && ip -n %[1]s link set in up && ip -n %[1]s link set lo up", ns))
	return startSSHDAt(t, "198.18.93.2", []string{"ip", "netns", "exec", ns})
}

func startSSHDAt(t *testing.T, address string, within []string) *sshd {
	t.Helper()
	path := "/usr/sbin/sshd"
	if _, err := os.Stat(path); err != nil {
		t.Skip("there is no sshd: apt-get install openssh-server")
	}
	if _, err := exec.LookPath("ssh-keygen"); err != nil || os.Getuid() != 0 {
		t.Skip("ssh-keygen, and to be root, is wanted for an sshd of one's own")
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Skipf("sshd needs /run/sshd: %v", err)
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	port := 2222
	if within == nil {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port = ln.Addr().(*net.TCPAddr).Port
		ln.Close()
	}
	text := fmt.Sprintf("Port %d\nListenAddress ADDRESS\nHostKey %s/host\nAuthorizedKeysFile %[2]s/user.pub\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n", port, dir)
	text = strings.ReplaceAll(text, "ADDRESS", address)
	file := filepath.Join(dir, "sshd_config")
	host := content(t, filepath.Join(dir, "host.pub"))
	for name, what := range map[string]string{file: text, filepath.Join(dir, "known"): fmt.Sprintf("[%s]:%d %s", address, port, host)} {
		if err := os.WriteFile(name, []byte(what), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := append(slices.Clone(within), path, "-D", "-e", "-f", file)
	s := &sshd{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{})}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); <-s.done })
	s.options = map[string]string{"ip": address, "ipport": fmt.Sprint(port), "identity_file": filepath.Join(dir, "user"), "known_hosts": filepath.Join(dir, "known"), "power_wait": "8"}
	r, call := newRunner(t), Call{Agent: ours(t, "fence_ssh"), Node: "alpha", Action: "monitor", Limit: time.Minute, Options: s.options}
	deadline := time.Now().Add(10 * second)
	for res := r.Run(t.Context(), call); res.Exit != 0; res = r.Run(t.Context(), call) {
		if time.Now().After(deadline) {
			t.Fatal(res.Why())
		}
	}
	return s
}

func (s *sshd) with(name, value string) map[string]string {
	out := map[string]string{name: value}
	for k, v := range s.options {
		if k != name {
			out[k] = v
		}
	}
	return out
}

func TestSSHAgentAgainstARealServer(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for an sshd to stay silent: not with -short")
	}
	s := startSSHD(t)
	r, call := newRunner(t), Call{Agent: ours(t, "fence_ssh"), Node: "alpha", Limit: time.Minute}
	call.Options = s.with("off_command", "true")
	if got, why := r.Off(t.Context(), call); got != fence.Failed || !strings.Contains(why, "answers still") {
		t.Errorf("a machine that lives on: %s, %s", got, why)
	}
	call.Options = s.with("known_hosts", "/dev/null")
	if got, why := r.Off(t.Context(), call); got != fence.Failed || !strings.Contains(why, "whether it is on is unknown") {
		t.Errorf("a machine that is not known: %s, %s", got, why)
	}
	call.Options = s.with("off_command", fmt.Sprintf("kill -STOP %d", s.cmd.Process.Pid))
	if got, why := r.Off(t.Context(), call); got != fence.Failed || !strings.Contains(why, "answers still") {
		t.Errorf("a machine whose sshd hangs: %s, %s", got, why)
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	call.Options = s.with("off_command", fmt.Sprintf("kill -9 %d", s.cmd.Process.Pid))
	if got, why := r.Off(t.Context(), call); got != fence.Failed || !strings.Contains(why, "refused") {
		t.Errorf("a machine whose sshd alone has ended: %s, %s", got, why)
	}
	select {
	case <-s.done:
	default:
		t.Error("it runs")
	}
	if got, why := r.Off(t.Context(), call); got != fence.Failed || !strings.Contains(why, "whether it is on is unknown") {
		t.Errorf("a machine that does not answer: %s, %s", got, why)
	}
}

// A machine, as a network namespace of its own is one to who looks from outside: what is done to its link ends all that answers, or its
// kernel answers on.
func TestSSHAgentTakesForOffWhatIsSilentAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for a machine to stay silent: not with -short")
	}
	for _, c := range []struct {
		name, off, power string
		want             fence.Answer
		says             string
	}{
		{"no way leads to it", "ip link set in down", "20", fence.Done, ""},
		{"nothing comes from it", "ip neigh replace 198.18.93.1 lladdr 02:00:00:00:00:01 nud permanent dev in", "20", fence.Done, ""},
		{"the link is cut before the command is known to have come", "", "8", fence.Failed, "whether it is on is unknown"},
		{"the link returns", "ip link set in down; sleep 4; ip link set in up", "12", fence.Failed, "answers still"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns, out := fmt.Sprintf("fence%d", os.Getpid()), fmt.Sprintf("fence%d", os.Getpid())
			s := startSSHDIn(t, ns, out)
			r, call := newRunner(t), Call{Agent: ours(t, "fence_ssh"), Node: "alpha", Limit: time.Minute, Options: s.with("power_wait", c.power)}
			call.Options["off_command"] = c.off
			if c.off == "" { // the shell gets it, and the link is cut while its answer is still out: as where a sync hangs
				call.Options["off_command"] = "sleep 100) & echo begun; ip link set in down; (sleep 100"
			}
			got, why := r.Off(t.Context(), call)
			if got != c.want || !strings.Contains(why, c.says) {
				t.Errorf("%s, %s; want %s", got, why, c.want)
			}
		})
	}
}

func mustRun(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}
