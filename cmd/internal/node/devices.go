package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hacluster/blockdev/frontend/attach"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// devices keeps the local devices of this node's volumes as package attach decides: its runner.
type devices struct {
	n      *Node
	kick   chan struct{} // look now; room for one
	goes   sync.WaitGroup
	unable error // why this machine can have none; nil: it can. Set before run

	mu  sync.Mutex
	all map[string]*device // of volumes that have one, had one, or are to have one
}

// device is one volume's. Only who holds busy carries an action out.
type device struct {
	place   attach.Place
	busy    bool
	running bool          // a Server runs
	left    bool          // one that was killed left something
	told    *attach.Reply // by the Server that runs; nil: nothing yet
	why     string        // there is none
	retry   time.Time     // not before, after an action that failed
	leaves  cluster.Epoch // a hand-over out of this epoch is under way
	until   time.Time     // at the longest
}

func newDevices(n *Node) *devices {
	d := &devices{n: n, kick: make(chan struct{}, 1), all: map[string]*device{}}
	places, err := attach.Places(d.dir(), n.cfg.AttachDir())
	if err != nil {
		n.log.Warn("local devices of earlier are not looked after", "error", err)
	}
	for _, p := range places { // at once: the first report says what waits for us
		v := &device{place: p, running: p.Runs()}
		v.left = !v.running && p.Left()
		if v.running || v.left {
			d.all[p.Volume] = v
			n.log.Info("local device of an earlier process", "volume", p.Volume, "device", p.Link(), "served", v.running)
		}
	}
	return d
}

func (d *devices) dir() string { return filepath.Join(d.n.cfg.DataDir(), "attach") }

// socket is where the processes behind devices reach this one by NBD.
func (d *devices) socket() string { return filepath.Join(d.n.cfg.DataDir(), "nbd.sock") }

// wants is how the configuration has the volume attached here; none for a volume of others.
func (d *devices) wants(cfg *config.Config, volume string) config.Attach {
	if vol, ok := cfg.Volume(volume); ok {
		if rep, here := vol.Replica(d.n.me.Name); here {
			return rep.Export.Attach
		}
	}
	return config.AttachNone
}

// needed reports whether there is a device, or is to be one.
func (d *devices) needed() bool {
	cfg := d.n.conf()
	for _, vol := range cfg.Volumes {
		if d.wants(cfg, vol.Name) != config.AttachNone {
			return true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.all) > 0
}

// look is how often it is looked whether a process behind a device still runs.
const look = 500 * time.Millisecond

func (d *devices) run(ctx context.Context) error {
	defer d.goes.Wait()
	tick := time.NewTicker(look)
	defer tick.Stop()
	able := false
	for {
		needed := d.needed()
		if needed && !able {
			able = true
			if d.unable = attach.Supported(); d.unable != nil {
				d.n.log.Error("no local device can be attached", "error", d.unable)
			} else {
				attach.ProtectMemory(d.n.log)
			}
		}
		_, changed := d.n.state.watch()
		_, _, configured := d.n.run.watch()
		beat := tick.C
		if !needed {
			beat = nil
		} else {
			d.follow(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-configured:
		case <-beat:
		case <-d.kick:
		}
	}
}

func (d *devices) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// follow begins what is to be done next about each device, and forgets those of which nothing is left and that nobody wants.
func (d *devices) follow(ctx context.Context) {
	cfg := d.n.conf()
	d.mu.Lock()
	for name, v := range d.all {
		if !v.busy && !v.running && !v.left && d.wants(cfg, name) == config.AttachNone {
			delete(d.all, name)
		}
	}
	for _, vol := range cfg.Volumes {
		if d.all[vol.Name] == nil && d.wants(cfg, vol.Name) != config.AttachNone {
			d.all[vol.Name] = &device{place: attach.Place{Dir: d.dir(), Devs: d.n.cfg.AttachDir(), Volume: vol.Name}}
		}
	}
	d.mu.Unlock()
	for _, name := range d.names() {
		d.followOne(ctx, cfg, name)
	}
}

func (d *devices) names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return sortedKeys(d.all)
}

func (d *devices) followOne(ctx context.Context, cfg *config.Config, name string) {
	d.mu.Lock()
	v := d.all[name]
	if v.busy {
		d.mu.Unlock()
		return
	}
	v.busy = true
	was, left := v.running, v.left
	d.mu.Unlock()
	running := v.place.Runs() // without the lock: it asks a disk
	if was && !running {
		left = v.place.Left()
	}
	d.mu.Lock()
	v.running, v.left = running, left
	if !running {
		v.told = nil
	}
	a, why := attach.Decide(d.view(cfg, name, v))
	if a == attach.Start && d.unable != nil {
		a, why = attach.Nothing, d.unable.Error()
	}
	late := time.Now().Before(v.retry)
	if a != attach.Start || !late {
		v.why = why
	}
	v.busy = a != attach.Nothing && !late
	begun := v.busy
	d.mu.Unlock()
	if !begun {
		return
	}
	d.goes.Go(func() {
		err := d.carryOut(ctx, v, a, why)
		d.mu.Lock()
		v.busy = false
		if err != nil {
			v.why, v.retry = err.Error(), time.Now().Add(reopenPause)
		}
		d.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			d.n.log.Error("local device", "volume", name, "device", v.place.Link(), "error", err, "again_in", reopenPause)
		}
		d.wake()
	})
}

// registered reports whether the cluster's record was seen that has this very process. A record of before, as a restart applies
// them one by one, may be older than what a Server was told by the process before this one.
func (d *devices) registered() bool {
	select {
	case <-d.n.readyc:
		return true
	default:
		return false
	}
}

// view is called with the mutex held. As long as this process is not registered, nothing is said against a Server.
func (d *devices) view(cfg *config.Config, name string, v *device) attach.View {
	registered := d.registered() // first, and the record then: it is not older than that, nor than what a Server told
	vol, w, exists := d.n.state.get().Window(name)
	if !registered {
		vol, exists = cluster.Volume{}, true
	}
	out := attach.View{Wanted: d.wants(cfg, name) != config.AttachNone, Exists: exists, Primary: vol.Primary, Self: d.n.me.Name,
		Epoch: uint64(vol.Epoch), Since: uint64(vol.Since),
		Leaving: v.leaves != 0 && v.leaves == vol.Epoch && time.Now().Before(v.until), Server: v.running, Left: v.left}
	if v.told != nil {
		out.DeviceSize, out.Told = v.told.Size, v.told.Epoch
		out.Replaced = registered && v.told.ID != "" && v.told.ID != vol.ID
	}
	if r := d.n.vols.replica(vol.Name); r != nil {
		if t := r.Tenure(); t != nil && t.Epoch() == vol.Epoch {
			if out.Serves, out.Size = true, t.Export().Size(); vol.IsGroup() {
				out.Size = w.Size
			}
		}
	}
	return out
}

func (d *devices) carryOut(ctx context.Context, v *device, a attach.Action, why string) error {
	switch a {
	case attach.Clean:
		err := v.place.Clean(d.n.log)
		d.mu.Lock()
		v.left = err != nil
		d.mu.Unlock()
		return err
	case attach.Start:
		if err := v.place.Launch(ctx, "/proc/self/exe", d.socket(), func(error) { d.wake() }); err != nil {
			return err
		}
		d.n.events.add("device attached", v.place.Volume, fmt.Sprintf("%s on %s", v.place.Link(), d.n.me.Name))
		return d.ask(ctx, v, attach.DoStatus, "")
	case attach.Release:
		return d.release(ctx, v)
	case attach.Abandon:
		d.n.events.add("device given up", v.place.Volume, fmt.Sprintf("%s on %s gives errors to who still uses it: %s", v.place.Link(), d.n.me.Name, why))
		return d.ask(ctx, v, attach.DoAbandon, why)
	case attach.Resize:
		return d.ask(ctx, v, attach.DoResize, "")
	}
	return d.ask(ctx, v, attach.DoStatus, "")
}

func (d *devices) ask(ctx context.Context, v *device, do, why string) error {
	r, err := v.place.Ask(ctx, attach.Request{Do: do, Why: why})
	if err != nil {
		return err
	}
	if do == attach.DoAbandon {
		return d.ended(ctx, v)
	}
	if r.Epoch == 0 {
		return fmt.Errorf("the server process of %s does not say in which epoch it was connected: it is asked again", v.place.Link())
	}
	d.mu.Lock()
	v.running, v.told = true, r
	d.mu.Unlock()
	return nil
}

// ended waits for a process that has let its device go.
func (d *devices) ended(ctx context.Context, v *device) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	if err := v.place.Ended(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	v.running, v.told = false, nil
	d.mu.Unlock()
	return nil
}

// endLimit is how long a process may take to end after it has let its device go.
const endLimit = 10 * time.Second

// errInUse: the device is not let go, because somebody would get errors.
var errInUse = errors.New("in use")

func (d *devices) release(ctx context.Context, v *device) error {
	r, err := v.place.Ask(ctx, attach.Request{Do: attach.DoRelease})
	if err != nil {
		return err
	}
	if r.Busy {
		who := "somebody who is not seen"
		if len(r.Users) > 0 {
			who = strings.Join(r.Users, ", ")
		}
		return fmt.Errorf("the local device %s of volume %q is %w on %s: %s: unmount it, or stop who uses it, first", v.place.Link(), v.place.Volume, errInUse, d.n.me.Name, who)
	}
	return d.ended(ctx, v)
}

// leave lets the devices of a volume, or of all volumes of a group, go for a hand-over out of the epoch. When one is in use, all stay.
func (d *devices) leave(ctx context.Context, volume string, e cluster.Epoch) error {
	for _, name := range d.n.windowsOf(volume) {
		if err := d.leaveOne(ctx, name, e, 4*d.n.conf().Timers.RTO+d.n.toDrain(volume)); err != nil {
			d.stay(volume)
			return err
		}
	}
	return nil
}

// leaveOne lets the device go for a hand-over out of the epoch; it is not made anew while that is under way. A device in use is an
// error, and stays.
func (d *devices) leaveOne(ctx context.Context, volume string, e cluster.Epoch, patience time.Duration) error {
	v, err := d.hold(ctx, volume)
	if v == nil || err != nil {
		return err
	}
	defer d.unhold(v)
	d.mu.Lock()
	v.leaves, v.until = e, time.Now().Add(patience)
	d.mu.Unlock()
	if !v.place.Runs() {
		return nil
	}
	err = d.release(ctx, v)
	if err != nil {
		d.mu.Lock()
		v.leaves = 0
		d.mu.Unlock()
	}
	return err
}

// stay takes leave back: the hand-over did not happen.
func (d *devices) stay(volume string) {
	names := d.n.windowsOf(volume)
	d.mu.Lock()
	for _, name := range names {
		if v := d.all[name]; v != nil {
			v.leaves = 0
		}
	}
	d.mu.Unlock()
	d.wake()
}

// hold waits until nothing is under way about the device; nil: the volume has none.
func (d *devices) hold(ctx context.Context, volume string) (*device, error) {
	for {
		d.mu.Lock()
		v := d.all[volume]
		if v == nil || !v.busy {
			if v != nil {
				v.busy = true
			}
			d.mu.Unlock()
			return v, nil
		}
		d.mu.Unlock()
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("local device of volume %q: %w", volume, ctx.Err())
		}
	}
}

func (d *devices) unhold(v *device) {
	d.mu.Lock()
	v.busy = false
	d.mu.Unlock()
	d.wake()
}

// letGo ends, in a clean stop, the devices that nobody uses. The others hold their users' requests until a daemon serves again.
func (d *devices) letGo() {
	ctx, cancel := context.WithTimeout(context.Background(), d.n.conf().Timers.RTO)
	defer cancel()
	for _, name := range d.names() {
		v, err := d.hold(ctx, name)
		if err == nil && v != nil && v.place.Runs() {
			err = d.release(ctx, v) // busy stays set: nothing is begun any more
		}
		if err != nil {
			d.n.log.Warn("the local device stays: its users wait until haclusterd is started again here", "volume", name, "error", err)
		}
	}
}

// attached reports whether a device waits for this node to serve.
func (d *devices) attached(volume string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.all[volume]
	return v != nil && v.running
}

// shown is the device as a status has it.
func (d *devices) shown(volume string) (device, why string) {
	if d.wants(d.n.conf(), volume) == config.AttachNone && !d.attached(volume) {
		return "", ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch v := d.all[volume]; {
	case v == nil:
		return "", "it is not attached yet"
	case v.running && v.told != nil:
		return v.place.Link(), ""
	case v.why == "":
		return "", "it is being attached"
	default:
		return "", v.why
	}
}
