package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
)

// Options is what the command line says about how to read the file.
type Options struct {
	// Node is the node that reads. Default: the host name for Load, none for Check.
	Node string
	// Insecure: --insecure was given. It is refused unless every address is a loopback address.
	Insecure bool
	// PKI is the folder of certificates and keys.
	PKI string
	// DataDir goes before the file's data_dir, when set.
	DataDir string
}

// Load reads the file for the node that starts. It refuses everything that is wrong, and what is not supported yet;
// the error is Problems then. Any other error means that the file could not be read.
func Load(path string, o Options) (*Config, error) {
	if o.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find out which node this is: %w: name it with --node", err)
		}
		o.Node = name
	}
	src, err := read(path)
	if err != nil {
		return nil, err
	}
	c, r := decode(path, src, o)
	if c == nil {
		return nil, r.problems.sorted()
	}
	if c.Self == "" {
		r.add(pos{text: o.Node}, "this node is not in the file", "name one of these with --node: "+known(nodeNames(c.Nodes)))
	}
	c.checkInsecure(&r.report)
	if err := slices.Concat(r.problems, c.unsupported()).sorted().err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Report is what Check found in a file that is in order.
type Report struct {
	Config *Config
	// Unsupported is what the daemon refuses to start with, as yet.
	Unsupported Problems
	// Warnings may be meant so.
	Warnings Problems
	// Missing are fence agents that this machine does not have, if it is one of the nodes: no reason not to start, one not to apply.
	Missing Problems
}

// Check reads the file for every node at once and starts nothing. The error is Problems when something is wrong with
// it; any other means that it could not be read. o.Node only says whose device paths lie on this machine, and may be
// a name that is not in the file.
func Check(path string, o Options) (*Report, error) {
	src, err := read(path)
	if err != nil {
		return nil, err
	}
	return check(path, src, o)
}

func check(path string, src []byte, o Options) (*Report, error) {
	c, r := decode(path, src, o)
	if c != nil && o.Insecure {
		c.checkInsecure(&r.report)
	}
	if err := r.problems.sorted().err(); err != nil {
		return nil, err
	}
	return &Report{Config: c, Unsupported: c.unsupported().sorted(), Warnings: c.warnings(), Missing: c.MissingAgents()}, nil
}

// AdminSocket finds the local daemon's socket for a program that knows no more than the file and perhaps the node's
// name. It asks for no more of the file than data_dir, so that a file with a mistake elsewhere does not lock the
// operator out.
func AdminSocket(path, node string) (string, error) {
	src, err := read(path)
	if err != nil {
		return "", err
	}
	r := &reader{report: report{file: path}, src: src}
	root, err := r.parse()
	if err != nil {
		return "", r.problems.sorted()
	}
	quiet := &reader{report: report{file: path}, src: src}
	n, _ := findNode(quiet.nodes(&body{r: quiet, hcl: root.hcl}), node)
	if n.Name != "" {
		root.vars = nodeScope(n)
	}
	if b := root.one(true, "cluster"); b != nil {
		dir := r.dataDir(b)
		return adminSocket(dir), r.problems.sorted().err()
	}
	return "", Problems{{File: path, What: "missing block cluster", Want: `it needs one: cluster "name" { ... }`}}
}

// DefaultAdminSocket is where the daemon listens when the file does not say otherwise.
func DefaultAdminSocket() string { return adminSocket(defaultDataDir) }

// decode reads src for every node and checks what it says. The Config is nil when the syntax is broken; otherwise it
// is as whole as the problems allow. Its Self is empty when the file has no node of that name.
func decode(path string, src []byte, o Options) (*Config, *reader) {
	r := &reader{report: report{file: path}, src: src}
	root, err := r.parse()
	if err != nil {
		return nil, r
	}
	c := &Config{File: path, Insecure: o.Insecure, PKI: o.PKI, dataDir: o.DataDir}
	c.source = src
	c.Nodes = r.nodes(root)
	if n, ok := findNode(c.Nodes, o.Node); ok {
		c.Self = n.Name
	}
	r.views(root, c)
	c.index = map[string]int{}
	for i := range c.Volumes {
		c.index[c.Volumes[i].Name] = i
	}
	c.Timers = r.timers(root, c.Cluster.RTO)
	c.checkMeaning(&r.report)
	return c, r
}

// view is what the file says to one node.
type view struct {
	cluster  Cluster
	dirs     folders
	volumes  []volumeView
	links    []Link
	services []Service
	fences   []Fence
}

// views evaluates the file for every node and joins the results.
func (r *reader) views(root *body, c *Config) {
	nodes := c.Nodes
	if len(nodes) == 0 {
		nodes = []Node{{Name: "none"}} // a file without nodes is refused already; the rest of it is still looked at
	}
	views := make([]view, len(nodes))
	for i, n := range nodes {
		views[i] = r.view(root, c.Nodes, n)
	}
	c.Cluster = views[0].cluster
	for _, v := range views[0].volumes {
		v.Replicas = slices.Clone(v.Replicas)
		c.Volumes = append(c.Volumes, v.Volume)
	}
	c.Links = views[0].links
	c.services, c.fences = map[string][]Service{}, map[string][]Fence{}
	for i, n := range nodes {
		r.join(c, n, views[0], views[i])
		if i < len(c.Nodes) {
			c.Nodes[i].DataDir, c.Nodes[i].AttachDir = views[i].dirs.data, views[i].dirs.attach
		}
		c.services[n.Name], c.fences[n.Name] = views[i].services, views[i].fences
	}
	reads := c.Self
	if reads == "" {
		reads = nodes[0].Name
	}
	c.Services, c.Fences = c.services[reads], c.fences[reads]
}

func (r *reader) view(root *body, nodes []Node, n Node) view {
	b := &body{r: r, hcl: root.hcl, vars: nodeScope(n)}
	defer b.finish()
	var v view
	v.cluster, v.dirs = r.cluster(b)
	b.kinds = append(b.kinds, "node")
	v.volumes = r.volumes(b, nodes)
	v.links = r.links(b, nodes)
	v.services = r.services(b, v.volumes)
	v.fences = r.fences(b, nodes)
	return v
}

// join puts what n exports into its replicas, and refuses what must not differ between nodes (faults.md C74, C78).
func (r *reader) join(c *Config, n Node, first, mine view) {
	if !reflect.DeepEqual(first.cluster, mine.cluster) {
		r.add(mine.cluster.at, "differs between nodes", "only data_dir and attach_dir may use ${node...} here")
	}
	if !reflect.DeepEqual(first.links, mine.links) {
		for _, l := range mine.links {
			r.add(l.at, "differs between nodes", "${node...} cannot be used here")
		}
	}
	for i, v := range mine.volumes {
		if !reflect.DeepEqual(first.volumes[i].Volume, v.Volume) {
			r.add(v.at, "differs between nodes", "only device and export may use ${node...} here")
		}
		for j := range c.Volumes[i].Replicas {
			if c.Volumes[i].Replicas[j].Node == n.Name {
				c.Volumes[i].Replicas[j].Export = v.export
			}
		}
	}
}

func findNode(nodes []Node, name string) (Node, bool) {
	for _, n := range nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

func nodeNames(nodes []Node) []string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	return names
}

func volumeNames(volumes []volumeView) []string {
	names := make([]string, len(volumes))
	for i, v := range volumes {
		names[i] = v.Name
	}
	return names
}
