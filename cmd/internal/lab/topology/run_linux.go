package topology

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// run runs a tool to its end.
func run(name string, args ...string) error { return runWith("", name, args...) }

func runWith(stdin, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// ip runs commands of the tool ip in a network namespace, or in ours when none is named.
func ip(namespace string, cmds []string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	return runWith(strings.Join(cmds, "\n")+"\n", "ip", args...)
}

// inside is a command in a node's network namespace, in a mount namespace of its own, with the node's boot id. It
// becomes the command itself: one process, one id.
func (l *Lab) inside(node string, command ...string) *exec.Cmd {
	script := `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`
	args := []string{"--net=" + l.netns(node), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, l.bootFile(node)}
	return exec.Command("nsenter", append(args, command...)...)
}

// Exec runs a command as on a node, with our own terminal.
func (l *Lab) Exec(node string, command ...string) error {
	s, err := l.State()
	if err != nil {
		return err
	}
	if _, err := s.Node(node); err != nil {
		return err
	}
	cmd := l.inside(node, command...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// Network enters a node's network namespace only: the command sees the machine's files as we do.
func (l *Lab) Network(node string, command ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + l.netns(node)}, command...)...)
}
