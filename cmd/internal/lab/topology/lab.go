// Package topology lays the network of a cluster out on one Linux machine: each server is a network namespace with its
// cables (veth pairs) plugged into four switches (bridges, in a namespace of their own), and its processes run in mount
// namespaces of their own, in which another boot id is bind-mounted over the kernel's.
//
//	hb1     heartbeat network      alpha beta gamma
//	hb2     another one            alpha beta gamma
//	repl    block data and Raft    alpha beta gamma
//	client  where volumes are used alpha beta        client (a host of its own)
//
// A lab is a folder: what one invocation of a program made, the next one finds there. Everything that the kernel keeps
// bears the lab's name, so that labs stand side by side and one that was left behind can be found and removed.
//
// The package needs root. It changes nothing outside the lab's namespaces and folder, and signals only processes that
// live in those namespaces. It judges nothing: package scenario does.
package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
)

// Lab is one lab. Its methods may be called concurrently; several programs may hold the same lab.
type Lab struct {
	Name string
	Dir  string // everything that is a file lies below it

	reap sync.WaitGroup // processes that this program started
}

// State is what is known about a lab beside what the kernel shows.
type State struct {
	Config Config
	Nodes  []Node
	Rules  []Rule
	Shapes []Shape
	Wires  []Wire
}

// Config says what kind of lab.
type Config struct {
	Bin       string // folder of haclusterd and ha-admin
	Tools     string // folder of this program and of hadisk
	Plain     bool   // without TLS: on loopback addresses that are routed between the namespaces
	Witnesses int    // default 1
	Copies    int    // replicas, each on a data node of its own: 2 or 3; default 2. With three there is no witness
	RTO       string // default "2s"
	Size      string // of the volume, default "64MiB"
	Mode      string // of the volume, default "sync"
	Extra     string // more lines of the volume block
	Link      string // the link block of the two nodes with replicas
	Fences    string // fence blocks; with any, fencing is required. {lab} in them is the lab's name
	Clocks    bool   // the daemons in Bin have clocks that can be stepped (package wallclock)
	Disks     bool   // the nodes' folders lie on disks that can lose power, fail and hang
}

var goodName = regexp.MustCompile(`^[a-z0-9-]{1,24}$`)

// Root is the folder of all labs: $HACLUSTER_LABS, or /var/tmp/hacluster-lab (a real disk: Raft's log lies there).
func Root() string {
	if d := os.Getenv("HACLUSTER_LABS"); d != "" {
		return d
	}
	return "/var/tmp/hacluster-lab"
}

func at(name string) (*Lab, error) {
	if !goodName.MatchString(name) {
		return nil, fmt.Errorf("a lab cannot be called %q: small letters, digits and dashes are wanted, 24 at most", name)
	}
	return &Lab{Name: name, Dir: filepath.Join(Root(), name)}, nil
}

// Open finds a lab that is up.
func Open(name string) (*Lab, error) {
	l, err := at(name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(l.stateFile()); err != nil {
		return nil, fmt.Errorf("there is no lab %q (%w): scripts/lab up makes one", name, err)
	}
	return l, nil
}

func (l *Lab) stateFile() string { return filepath.Join(l.Dir, "state.json") }

// State reads the present state.
func (l *Lab) State() (s State, err error) {
	b, err := os.ReadFile(l.stateFile())
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read %s: %w: remove the lab (scripts/lab down) and make it anew", l.stateFile(), err)
	}
	return s, nil
}

// update changes the state under the lab's lock: change alters it and makes the kernel follow, in whichever order.
func (l *Lab) update(change func(*State) error) error {
	unlock, err := lock(filepath.Join(l.Dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.State()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	failed := change(&s) // what it did before it failed must be known all the same
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return errors.Join(failed, err)
	}
	fresh := l.stateFile() + ".new"
	if err := os.WriteFile(fresh, b, 0o644); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, os.Rename(fresh, l.stateFile()))
}

// Wait waits for all processes that this program started in the lab; Down ends them.
func (l *Lab) Wait() { l.reap.Wait() }

// Node finds a node by its name.
func (s *State) Node(name string) (*Node, error) {
	i := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no node %q in this lab: %v are there", name, s.names())
	}
	return &s.Nodes[i], nil
}

func (s *State) names() (all []string) {
	for _, n := range s.Nodes {
		all = append(all, n.Name)
	}
	return all
}
