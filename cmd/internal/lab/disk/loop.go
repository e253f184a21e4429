package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// LoopDevice is a block device over a file.
type LoopDevice struct {
	Path string

	cmd  *exec.Cmd
	hold io.Closer
}

// Loop makes a block device of a file, by program hadisk, which ends with us: its standard input does.
func Loop(program, file string) (*LoopDevice, error) {
	l := &LoopDevice{cmd: exec.Command(program, "loop", file)}
	var stderr strings.Builder
	l.cmd.Stderr = &stderr
	in, err := l.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	l.hold = in
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("no loop device for %s: %w", file, errors.Join(l.Close(), errors.New(stderr.String())))
	}
	l.Path = strings.TrimSpace(line)
	return l, nil
}

// Close lets the device go: it vanishes when nobody has it open.
func (l *LoopDevice) Close() error {
	return errors.Join(l.hold.Close(), l.cmd.Wait())
}
