// Package e2e runs a whole cluster of real haclusterd processes on loopback addresses of this machine: two data
// nodes and a witness, or three or four data nodes. The demo, the end-to-end tests and the failover benchmark use it. It starts, kills, pauses and
// stops processes that it started itself, and nothing else.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/template"
	"time"

	"hacluster/blockdev/frontend/attach"
	"hacluster/cmd/internal/api"
)

// Config says what kind of cluster.
type Config struct {
	Dir     string // everything lies below it
	Bin     string // folder of haclusterd and ha-admin
	RTO     string // default "2s"
	Size    string // of the one volume, "vol"; default "1GiB"
	Mode    string // sync, semisync or async; default sync
	IO      string // auto, buffered or direct; default auto
	Disks   string // folder of the backings; default Dir, and below it when not absolute. ${node.name} in it stands for the node
	Extra   string // more lines of the volume block
	Copies  int    // replicas, each on a data node of its own: 2, 3 or 4; default 2. Without a third vote there is a witness
	Cluster string // more lines of the cluster block
	Blocks  string // more blocks. ${dir} in it stands for Dir
	Env     []string
	Attach  string // how the volume is attached; default none. The devices lie below Dir
	TLS     bool   // certificates are made by `ha-admin pki`; else --insecure
	// More are further volumes with the settings of the first, of one group with it: Group, unless Apart.
	More    []string
	Apart   bool
	BootIDs bool // each node runs with a boot id of its own, the content of BootID(node); only root may
}

// Nodes of a cluster of two replicas, in order; the last is the witness.
var Nodes = []string{"alpha", "beta", "gamma"}

// Nodes of this cluster, in order: those with a replica first.
func (c *Cluster) Nodes() []string {
	return []string{"alpha", "beta", "gamma", "delta", "epsilon"}[:c.cfg.Copies+1-c.cfg.Copies%2]
}

// DataNodes are those with a replica.
func (c *Cluster) DataNodes() []string { return c.Nodes()[:c.cfg.Copies] }

// Volume is the name of the one volume.
const Volume = "vol"

// Group is the name of the group, when there are more volumes.
const Group = "grp"

// Cluster is one running cluster.
type Cluster struct {
	cfg  Config
	net  byte // third octet of its loopback addresses, so that clusters run side by side
	port int

	mu     sync.Mutex
	procs  map[string]*proc
	paused map[string]bool // stopped by SIGSTOP
	env    map[string][]string
}

// made counts the clusters of this process, so that each looks for its addresses elsewhere.
var made atomic.Int64

type proc struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error
}

const file = `cluster "{{.Name}}" {
  rto      = "{{.RTO}}"
  data_dir = "{{.Dir}}/${node.name}"
  attach_dir = "{{.Dir}}/${node.name}.dev"
{{.Cluster}}
}
{{range $i, $n := .Nodes}}node "{{$n}}" {
{{if ge $i $.Copies}}  role    = "witness"
{{end}}  address = "127.{{$.Net}}.0.{{inc $i}}:{{$.Port}}"
  links   = ["127.{{$.Net}}.1.{{inc $i}}:{{$.Port}}", "127.{{$.Net}}.2.{{inc $i}}:{{$.Port}}"]
  http    = "127.{{$.Net}}.0.{{inc $i}}:{{$.HTTP}}"
}
{{end}}volume "vol" {
  size = "{{.Size}}"
  mode = "{{.Mode}}"
  io   = "{{.IO}}"
{{.Grouped}}{{range .Data}}  replica "{{.}}" { device = "{{$.Disks}}/{{.}}.img" }
{{end}}  export {
    nbd    = ["unix://{{.Dir}}/${node.name}.sock", "tcp://${node.host}:{{.NBD}}"]
    attach = "{{.Attach}}"
  }
{{.Extra}}
}
{{range $v := .More}}volume "{{$v}}" {
  size = "{{$.Size}}"
  mode = "{{$.Mode}}"
  io   = "{{$.IO}}"
{{$.Grouped}}{{range $.Data}}  replica "{{.}}" { device = "{{$.Disks}}/{{.}}-{{$v}}.img" }
{{end}}  export {
    nbd    = ["unix://{{$.Dir}}/${node.name}-{{$v}}.sock", "tcp://${node.host}:{{$.NBD}}"]
    attach = "{{$.Attach}}"
  }
{{$.Extra}}
}
{{end}}{{.Blocks}}`

// New writes the configuration and starts nothing.
func New(cfg Config) (*Cluster, error) {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&cfg.RTO, "2s")
	def(&cfg.Size, "1GiB")
	def(&cfg.Mode, "sync")
	def(&cfg.IO, "auto")
	def(&cfg.Disks, cfg.Dir)
	if cfg.Copies == 0 {
		cfg.Copies = 2
	}
	def(&cfg.Attach, "none")
	if !filepath.IsAbs(cfg.Disks) {
		cfg.Disks = filepath.Join(cfg.Dir, cfg.Disks)
	}
	c := &Cluster{cfg: cfg, procs: map[string]*proc{}, paused: map[string]bool{}, env: map[string][]string{}}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := c.findPorts(); err != nil {
		return nil, err
	}
	t := template.Must(template.New("cluster.hcl").Funcs(template.FuncMap{"inc": func(i int) int { return i + 1 }}).Parse(file))
	f, err := os.Create(c.File())
	if err != nil {
		return nil, err
	}
	grouped := ""
	if len(cfg.More) > 0 && !cfg.Apart {
		grouped = "  group = \"" + Group + "\"\n"
	}
	err = t.Execute(f, map[string]any{"Name": clusterName, "RTO": cfg.RTO, "Dir": cfg.Dir, "Nodes": c.Nodes(), "Data": c.DataNodes(), "Copies": cfg.Copies, "Net": c.net, "Port": c.port, "HTTP": c.port + 1,
		"NBD": c.port + 2, "Size": cfg.Size, "Mode": cfg.Mode, "IO": cfg.IO, "Disks": cfg.Disks, "Attach": cfg.Attach, "Extra": cfg.Extra, "More": cfg.More, "Grouped": grouped, "Cluster": cfg.Cluster, "Blocks": strings.ReplaceAll(cfg.Blocks, "${dir}", cfg.Dir)})
	if err := errors.Join(err, f.Close()); err != nil || !cfg.TLS {
		return c, err
	}
	return c, c.firstPKI()
}

const clusterName = "e2e"

// findPorts picks loopback addresses that nobody uses: 127.N.0.x for an N of its own.
func (c *Cluster) findPorts() error {
	first := int(made.Add(1)) * 5
	for try := first; try < first+100; try++ {
		n := byte(10 + (os.Getpid()+37*try)%200)
		port := 20000 + (os.Getpid()*7+try*101)%20000
		ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.1:%d", n, port))
		if err != nil {
			continue
		}
		ln.Close()
		c.net, c.port = n, port
		return nil
	}
	return errors.New("no free loopback address was found")
}

// File is the path of cluster.hcl.
func (c *Cluster) File() string { return filepath.Join(c.cfg.Dir, "cluster.hcl") }

// Log is the path of a node's log.
func (c *Cluster) Log(node string) string { return filepath.Join(c.cfg.Dir, node+".log") }

// Disk is the path of a node's backing.
func (c *Cluster) Disk(node string) string {
	return filepath.Join(strings.ReplaceAll(c.cfg.Disks, "${node.name}", node), node+".img")
}

// DiskOf is the path of a node's backing of one of several volumes.
func (c *Cluster) DiskOf(node, volume string) string {
	if volume == Volume {
		return c.Disk(node)
	}
	return strings.TrimSuffix(c.Disk(node), ".img") + "-" + volume + ".img"
}

// Device is where a node has the local device of the volume.
func (c *Cluster) Device(node string) string { return c.place(node).Link() }

// DeviceOf is where a node has the local device of one of several volumes.
func (c *Cluster) DeviceOf(node, volume string) string { return c.placeOf(node, volume).Link() }

func (c *Cluster) place(node string) attach.Place { return c.placeOf(node, Volume) }

func (c *Cluster) placeOf(node, volume string) attach.Place {
	return attach.Place{Dir: filepath.Join(c.DataDir(node), "attach"), Devs: filepath.Join(c.cfg.Dir, node+".dev"), Volume: volume}
}

// ServerPid is the process behind a node's local device, 0 when there is none.
func (c *Cluster) ServerPid(ctx context.Context, node string) int {
	r, err := c.place(node).Ask(ctx, attach.Request{Do: attach.DoStatus})
	if err != nil {
		return 0
	}
	return r.PID
}

// detach ends what outlives the daemons.
func (c *Cluster) detach() {
	if c.cfg.Attach == "none" {
		return
	}
	for _, n := range c.DataNodes() {
		for _, v := range append([]string{Volume}, c.cfg.More...) {
			p := c.placeOf(n, v)
			if p.Runs() {
				_, _ = p.Ask(context.Background(), attach.Request{Do: attach.DoAbandon, Why: "the cluster is closed"})
			}
			if err := p.Clean(slog.New(slog.DiscardHandler)); err != nil {
				fmt.Fprintln(os.Stderr, "clear away the device of", n, err)
			}
		}
	}
}

// BootID is the file that a node takes for the kernel's boot id when the configuration says so.
func (c *Cluster) BootID(node string) string { return filepath.Join(c.cfg.Dir, node+".boot_id") }

// DataDir is a node's data directory.
func (c *Cluster) DataDir(node string) string { return filepath.Join(c.cfg.Dir, node) }

// URI is where a node serves the volume over its unix socket.
func (c *Cluster) URI(node string) string {
	return fmt.Sprintf("nbd+unix:///%s?socket=%s/%s.sock", Volume, c.cfg.Dir, node)
}

// URIOf is where a node serves one of several volumes.
func (c *Cluster) URIOf(node, volume string) string {
	if volume == Volume {
		return c.URI(node)
	}
	return fmt.Sprintf("nbd+unix:///%s?socket=%s/%s-%[1]s.sock", volume, c.cfg.Dir, node)
}

// URIs are those of all data nodes, for a client that follows the primary.
func (c *Cluster) URIs() (all []string) {
	for _, n := range c.DataNodes() {
		all = append(all, c.URI(n))
	}
	return all
}

// HTTP is the address of a node's health endpoints.
func (c *Cluster) HTTP(node string) string {
	for i, n := range c.Nodes() {
		if n == node {
			return fmt.Sprintf("127.%d.0.%d:%d", c.net, i+1, c.port+1)
		}
	}
	return ""
}

// Start starts nodes; all when none is named.
func (c *Cluster) Start(nodes ...string) error {
	if len(nodes) == 0 {
		nodes = c.Nodes()
	}
	for _, n := range nodes {
		if err := c.start(n); err != nil {
			return fmt.Errorf("start %s: %w", n, err)
		}
	}
	return nil
}

func (c *Cluster) start(node string) error {
	log, err := os.OpenFile(c.Log(node), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.command(node)
	cmd.Stdout, cmd.Stderr = log, log
	c.mu.Lock()
	cmd.Env = append(append(os.Environ(), c.cfg.Env...), c.env[node]...)
	c.mu.Unlock()
	p := &proc{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() { // Pdeathsig follows the thread that started the process: keep one alive with it
		lockThread()
		started <- cmd.Start()
		if cmd.Process != nil {
			p.err = cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.procs[node], c.paused[node] = p, false
	return nil
}

// SetEnv gives a node's next process an environment of its own, beside that of all.
func (c *Cluster) SetEnv(node string, env ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.env[node] = env
}

// command is a node's daemon, which does not outlive us. With a boot id of its own it runs in a mount namespace of its
// own, where another file lies over the kernel's; the process stays the same.
func (c *Cluster) command(node string) *exec.Cmd {
	args := []string{filepath.Join(c.cfg.Bin, "haclusterd"), "--config", c.File(), "--node", node}
	args = append(args, c.security(node)...)
	if !c.cfg.BootIDs {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	script := `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, c.BootID(node)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

func (c *Cluster) proc(node string) *proc {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.procs[node]
}

// Pid is a node's process, 0 when it does not run.
func (c *Cluster) Pid(node string) int {
	p := c.proc(node)
	if p == nil {
		return 0
	}
	select {
	case <-p.done:
		return 0
	default:
		return p.cmd.Process.Pid
	}
}

// Signal sends a signal to a node's process.
func (c *Cluster) Signal(node string, s syscall.Signal) error {
	pid := c.Pid(node)
	if pid == 0 {
		return fmt.Errorf("%s does not run", node)
	}
	c.mu.Lock()
	c.paused[node] = s == syscall.SIGSTOP
	c.mu.Unlock()
	return syscall.Kill(pid, s)
}

// Kill ends a node by SIGKILL and waits until it is gone.
func (c *Cluster) Kill(nodes ...string) {
	for _, n := range nodes {
		_ = c.Signal(n, syscall.SIGKILL)
	}
	for _, n := range nodes {
		if p := c.proc(n); p != nil {
			<-p.done
		}
	}
}

// Stop ends a node by SIGTERM and tells its exit code.
func (c *Cluster) Stop(node string) (code int, err error) {
	p := c.proc(node)
	if err := c.Signal(node, syscall.SIGTERM); err != nil {
		return -1, err
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(30 * time.Second):
		_ = c.Signal(node, syscall.SIGQUIT) // its goroutines tell where it waits
		<-p.done
		return -1, fmt.Errorf("%s did not stop within 30 s: see its goroutines in %s", node, c.Log(node))
	}
}

// Wait waits for a node to end by itself and tells its exit code.
func (c *Cluster) Wait(ctx context.Context, node string) (code int, err error) {
	p := c.proc(node)
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("%s still runs: %w", node, ctx.Err())
	}
}

// Close kills what still runs.
func (c *Cluster) Close() {
	c.Kill(c.Nodes()...)
	c.detach()
}

// answers reports whether a node runs and is not stopped by SIGSTOP.
func (c *Cluster) answers(node string) bool {
	c.mu.Lock()
	paused := c.paused[node]
	c.mu.Unlock()
	return !paused && c.Pid(node) != 0
}

// Admin runs ha-admin against all nodes that run and returns what it printed and its exit code.
func (c *Cluster) Admin(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	return c.AdminAt(ctx, strings.Join(c.servers(), ","), args...)
}

// servers are the sockets of all nodes that run.
func (c *Cluster) servers() (all []string) {
	for _, n := range c.Nodes() {
		if c.answers(n) {
			all = append(all, filepath.Join(c.DataDir(n), "admin.sock"))
		}
	}
	return all
}

// AdminAt is Admin against named servers.
func (c *Cluster) AdminAt(ctx context.Context, servers string, args ...string) (stdout, stderr string, code int) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.cfg.Bin, "ha-admin"), append([]string{"--server", servers}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	code = cmd.ProcessState.ExitCode()
	if err != nil && code < 0 {
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), code
}

// statusLimit is how long one question may take: as long as ha-admin waits for an answer.
const statusLimit = 10 * time.Second

// Status asks any node that runs, as ha-admin does, and without a process for each look: a wait is twenty in a second.
func (c *Cluster) Status(ctx context.Context) (*api.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	client, err := api.Dial(ctx, c.servers(), api.DialSocket)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	s, _, err := client.Status(ctx, "")
	return s, err
}

// Until waits until the status is as wanted, or says what it was at last.
func (c *Cluster) Until(ctx context.Context, what string, want func(*api.Status) bool) (*api.Status, error) {
	var last *api.Status
	var lastErr error
	for {
		s, err := c.Status(ctx)
		if err == nil {
			last = s
			if want(s) {
				return s, nil
			}
		}
		lastErr = err
		select {
		case <-ctx.Done():
			b, _ := json.Marshal(last)
			return last, fmt.Errorf("waiting until %s: %w; last status %s, last error %v", what, ctx.Err(), b, lastErr)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Healthy is a condition for Until: the volume is served and every replica a member.
func Healthy(s *api.Status) bool {
	return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == api.VolumeHealthy
}

// PrimaryIs is a condition for Until: the node serves the volume.
func PrimaryIs(node string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].Primary == node &&
			s.Volumes[0].State != api.VolumeUnavailable && s.Volumes[0].State != api.VolumeSuspended
	}
}
