package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Permitted says why labs cannot be made here; nil: they can.
func Permitted() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root: it makes network namespaces")
	}
	for _, tool := range []string{"ip", "nft", "tc", "nsenter", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("a lab needs %s (Debian: iproute2, nftables, util-linux): %w", tool, err)
		}
	}
	probe := "halab-may-i-" + strconv.Itoa(os.Getpid())
	if err := run("ip", "netns", "add", probe); err != nil {
		return fmt.Errorf("network namespaces are not permitted here: %w", err)
	}
	defer run("ip", "netns", "del", probe)
	if err := run("nsenter", "--net=/run/netns/"+probe, "nft", "add", "table", "inet", "may-i"); err != nil {
		return fmt.Errorf("nftables cannot be used in a network namespace here: %w", err)
	}
	return nil
}

// Up makes a lab and starts no daemon.
func Up(name string, cfg Config) (*Lab, error) {
	if cfg.Witnesses == 0 {
		cfg.Witnesses = 1
	}
	if cfg.RTO == "" {
		cfg.RTO = "2s"
	}
	if cfg.Size == "" {
		cfg.Size = "64MiB"
	}
	l, err := at(name)
	if err != nil {
		return nil, err
	}
	if err := Permitted(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(l.stateFile()); err == nil {
		return nil, fmt.Errorf("lab %q is up already: take it down first (scripts/lab down)", name)
	}
	nodes, err := nodesFor(cfg)
	if err != nil {
		return nil, err
	}
	err = l.update(func(s *State) error {
		*s = State{Config: cfg, Nodes: nodes}
		return errors.Join(l.files(s), l.disks(s), l.cables(s))
	})
	if err != nil {
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

func (l *Lab) files(s *State) error {
	for i := range s.Nodes {
		if err := errors.Join(os.MkdirAll(l.Folder(s.Nodes[i].Name), 0o755), l.writeBootID(&s.Nodes[i])); err != nil {
			return err
		}
	}
	if err := l.writeConfig(s); err != nil || s.Config.Plain {
		return err
	}
	return l.certificates(s)
}

// certificates are made as an operator makes them.
func (l *Lab) certificates(s *State) error {
	pki := func(args ...string) error {
		return run(filepath.Join(s.Config.Bin, "ha-admin"), append(append([]string{"pki"}, args...), "--pki", l.PKI())...)
	}
	if err := pki("init", "--cluster", "lab"); err != nil {
		return err
	}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Role != Host {
			if err := pki("node", n.Name, "--host", s.Address(n, Replication)); err != nil {
				return err
			}
		}
	}
	return pki("user", User, "--role", "admin")
}

// cables makes the namespaces, switches and cables.
func (l *Lab) cables(s *State) error {
	sw := l.namespace("switch")
	make := []string{"netns add " + sw}
	for _, n := range s.Nodes {
		make = append(make, "netns add "+l.namespace(n.Name))
	}
	plugs := []string{"link set lo up"}
	for _, net := range Networks {
		plugs = append(plugs, "link add "+net+" type bridge forward_delay 0", "link set "+net+" up")
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		for _, net := range n.On() {
			make = append(make, fmt.Sprintf("link add %s netns %s type veth peer name %s netns %s", net, l.namespace(n.Name), plug(n, net), sw))
			plugs = append(plugs, fmt.Sprintf("link set %s master %s up", plug(n, net), net))
		}
	}
	if err := errors.Join(ip("", make), ip(sw, plugs)); err != nil {
		return err
	}
	for i := range s.Nodes {
		if err := l.addresses(s, &s.Nodes[i]); err != nil {
			return fmt.Errorf("node %s: %w", s.Nodes[i].Name, err)
		}
	}
	return nil
}

// plug is the name of the switch's end of a cable.
func plug(n *Node, network string) string { return fmt.Sprintf("p%d-%s", n.Number, network) }

// addresses sets a node's interfaces up. Clients reach a node by its own address, over the clients' network.
func (l *Lab) addresses(s *State, n *Node) error {
	var cmds []string
	if s.Config.Plain { // 127/8 becomes a network like any other; only 127.0.0.1 stays on lo
		localnet := "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"
		if err := run("nsenter", "--net="+l.netns(n.Name), "sh", "-c", localnet); err != nil {
			return err
		}
		cmds = append(cmds, "link set lo up", "addr del 127.0.0.1/8 dev lo", "addr add 127.0.0.1/32 dev lo")
	} else {
		cmds = append(cmds, "link set lo up")
	}
	for _, net := range n.On() {
		cmds = append(cmds, "link set "+net+" up", fmt.Sprintf("addr add %s/24 scope global dev %s", s.Address(n, net), net))
	}
	if n.Role == Host {
		for i := range s.Nodes {
			if d := &s.Nodes[i]; d.Role == Data {
				cmds = append(cmds, fmt.Sprintf("route add %s/32 via %s dev %s src %s", s.Address(d, Replication), s.Address(d, Clients), Clients, s.Address(n, Clients)))
			}
		}
	}
	return ip(l.namespace(n.Name), cmds)
}

// Down ends every process of the lab and removes all that belongs to it. It works on whatever is left of a lab.
func (l *Lab) Down() error {
	var errs []error
	if s, err := l.State(); err == nil {
		_ = l.releaseDisks(&s) // what hangs in one cannot be killed; whether that went well shows below
	}
	for _, ns := range l.namespaces() {
		errs = append(errs, killAll("/run/netns/"+ns))
	}
	l.reap.Wait()
	errs = append(errs, l.unmountDisks())
	for _, ns := range l.namespaces() {
		errs = append(errs, run("ip", "netns", "del", ns))
	}
	return errors.Join(append(errs, os.RemoveAll(l.Dir))...)
}

// namespaces lists those of this lab that exist.
func (l *Lab) namespaces() (names []string) {
	prefix := l.namespace("")
	all, _ := os.ReadDir("/run/netns") // absent: no namespace was ever made
	for _, e := range all {
		if strings.HasPrefix(e.Name(), prefix) && !strings.Contains(e.Name()[len(prefix):], "-") {
			names = append(names, e.Name())
		}
	}
	return names
}

// Labs lists the names of all labs of which anything is left: a folder or a namespace.
func Labs() ([]string, error) {
	seen := map[string]bool{}
	var names []string
	add := func(name string) {
		if goodName.MatchString(name) && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	folders, err := os.ReadDir(Root())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range folders {
		add(f.Name())
	}
	spaces, _ := os.ReadDir("/run/netns")
	for _, e := range spaces {
		if rest, ok := strings.CutPrefix(e.Name(), "halab-"); ok {
			if i := strings.LastIndex(rest, "-"); i > 0 {
				add(rest[:i])
			}
		}
	}
	return names, nil
}

// Find is Open for labs of which only parts are left, so that they can be taken down.
func Find(name string) (*Lab, error) {
	l, err := at(name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(l.Dir); err != nil && len(l.namespaces()) == 0 {
		return nil, fmt.Errorf("nothing is left of a lab %q", name)
	}
	return l, nil
}
