package topology

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hacluster/cmd/internal/lab/wire"
)

// Wire is a cable with a bad character, carried by a process of ours:
//
//	node's end -- plug == wire == inner -- outer -- switch
type Wire struct {
	Node, Network string
	Character     wire.Config
	Pid           int
}

// the two ends of the veth pair between the wire's process and the switch
func (w Wire) inner(n *Node) string { return "w" + strings.TrimPrefix(plug(n, w.Network), "p") }
func (w Wire) outer(n *Node) string { return "x" + strings.TrimPrefix(plug(n, w.Network), "p") }

func (l *Lab) wireStats(w Wire) string {
	return filepath.Join(l.Dir, "wire-"+w.Node+"-"+w.Network+".json")
}

// Rewire gives a node's cable to a network a bad character.
func (l *Lab) Rewire(node, network string, character wire.Config) error {
	if err := character.Validate(); err != nil {
		return err
	}
	return l.update(func(s *State) error {
		n, err := s.Node(node)
		if err != nil {
			return err
		}
		if !slices.Contains(n.On(), network) {
			return fmt.Errorf("%s is on the networks %v, not on %q", node, n.On(), network)
		}
		if slices.ContainsFunc(s.Wires, func(w Wire) bool { return w.Node == node && w.Network == network }) {
			return fmt.Errorf("the cable of %s to %s has a bad character already: heal it first", node, network)
		}
		w := Wire{Node: node, Network: network, Character: character}
		s.Wires = append(s.Wires, w) // before it is made: what is half made must be found, too
		err = ip(l.namespace("switch"), []string{
			fmt.Sprintf("link add %s type veth peer name %s", w.inner(n), w.outer(n)),
			fmt.Sprintf("link set %s up", w.inner(n)),
			fmt.Sprintf("link set %s nomaster", plug(n, network)),
			fmt.Sprintf("link set %s master %s up", w.outer(n), network),
		})
		if err != nil {
			return err
		}
		s.Wires[len(s.Wires)-1].Pid, err = l.carry(s, n, w)
		return err
	})
}

// carry starts the wire's process.
func (l *Lab) carry(s *State, n *Node, w Wire) (pid int, err error) {
	character, err := json.Marshal(w.Character)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("nsenter", "--net="+l.netns("switch"), filepath.Join(s.Config.Tools, "lab"), "wire",
		plug(n, w.Network), w.inner(n), l.wireStats(w), string(character))
	log, err := os.Create(l.wireStats(w) + ".log")
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	l.reap.Go(func() { _ = cmd.Wait() })
	if said != "ready\n" {
		why, _ := os.ReadFile(log.Name())
		return cmd.Process.Pid, fmt.Errorf("the wire of %s said %q (%v): %s", w.Node, said, err, why)
	}
	return cmd.Process.Pid, nil
}

// WireStats tells what a cable did so far.
func (l *Lab) WireStats(node, network string) (st wire.Stats, err error) {
	b, err := os.ReadFile(l.wireStats(Wire{Node: node, Network: network}))
	if errors.Is(err, os.ErrNotExist) {
		return st, nil // it has just begun
	}
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(b, &st)
}

// unwire plugs all cables in as they were.
func (l *Lab) unwire(s *State) (err error) {
	for _, w := range s.Wires {
		n, e := s.Node(w.Node)
		if e != nil {
			return errors.Join(err, e)
		}
		e = l.endWire(w)
		if e == nil {
			_ = run("ip", "-n", l.namespace("switch"), "link", "del", w.inner(n)) // absent if it was never made
			e = ip(l.namespace("switch"), []string{fmt.Sprintf("link set %s master %s up", plug(n, w.Network), w.Network)})
		}
		err = errors.Join(err, e, os.RemoveAll(l.wireStats(w)))
	}
	s.Wires = nil
	return err
}

// endWire ends the process of a wire, if it is still that process.
func (l *Lab) endWire(w Wire) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		ids, err := l.wirePids(w)
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			_ = syscall.Kill(id, syscall.SIGKILL) // it may have ended by itself
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the wire of %s to %s does not end: processes %v", w.Node, w.Network, ids)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (l *Lab) wirePids(w Wire) (ids []int, err error) {
	all, err := pids(l.netns("switch"))
	if err != nil {
		return nil, err
	}
	for _, id := range all {
		line, err := os.ReadFile("/proc/" + strconv.Itoa(id) + "/cmdline")
		if err == nil && strings.Contains(string(line), l.wireStats(w)+"\x00") {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
