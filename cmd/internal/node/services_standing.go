package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// standing is a node's right to run a service, and until when.
type standing struct {
	resource.Standing
	lease  cluster.Instant // until when the guard may have it running; 0: nothing new is known
	others bool            // another node leads the volume
	tenure tenure          // ours, if we serve
}

// guardSlack is what is added to the guard's time: it looks at the clock now and then.
const guardSlack = 50 * time.Millisecond

func (s *services) standing(run *serviceRun, now cluster.Instant) (out standing) {
	name, me := s.volumeOf(run), s.n.me.Name
	st := s.n.state.get()
	v, ok := st.Volumes[name]
	if !ok {
		return out
	}
	out.others = v.Primary != "" && v.Primary != me
	r := s.n.vols.replica(name)
	if r == nil || v.Primary != me || v.Process != s.n.dir.id.Start || !v.Acts() {
		return out
	}
	serving, ok := r.Serving()
	until := s.n.lease.until(name, v.Epoch)
	if !ok || serving.Epoch != v.Epoch || until <= now {
		return out
	}
	out.lease = until
	state, _ := run.machine.State()
	if run.handing == v.Epoch || serving.Suspended && state == resource.Stopped {
		return out
	}
	out.Serving, out.Epochs, out.tenure = true, map[string]cluster.Epoch{v.ID: v.Epoch}, tenure{v.ID, v.Epoch}
	out.Learned, out.Wait = s.n.vols.learned(name, v.Epoch, now), s.n.guardWait(st, &v)
	out.Others = map[string]bool{}
	for _, rep := range v.Replicas {
		if rep.Node != me {
			out.Others[rep.Node] = run.stopped[rep.Node] == out.tenure
		}
	}
	if f := failoverInto(st, &v); f != nil && f.From != me { // it may hold no replica any more
		out.Others[f.From] = run.stopped[f.From] == out.tenure
	}
	return out
}

// learned is when this node first knew of the epoch; now, if that is not known.
func (v *volumes) learned(name string, e cluster.Epoch, now cluster.Instant) cluster.Instant {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.all[name]; h != nil && h.epoch == e {
		return h.learned
	}
	return now
}

// guardWait is how long after the promotion the guard of a node that does not answer may leave its services running. The leader has
// waited for the end of the lease, or else that is waited for as well: a primary whose process was replaced, or that gave the volume
// up and then was lost, has a guard that still counts on it.
func (n *Node) guardWait(st *cluster.State, v *cluster.Volume) time.Duration {
	t := n.conf().Timers
	if longest, err := config.TimersFor(millis(max(st.LongestRTOMillis, st.RTOMillis))); err == nil && longest.RTO > t.RTO {
		t = longest
	}
	wait := t.GuardWithDrift() + guardSlack
	if f := failoverInto(st, v); f == nil || f.Reason != failover.LeaseExpired {
		wait += t.LeaseWithDrift()
	}
	return wait
}

// failoverInto is the record of how the volume's present epoch began; nil without.
func failoverInto(st *cluster.State, v *cluster.Volume) *cluster.Failover {
	i := slices.IndexFunc(st.Failovers, func(f cluster.Failover) bool { return f.Volume == v.Name && f.Epoch == v.Epoch })
	if i < 0 {
		return nil
	}
	return &st.Failovers[i]
}

func (s *services) promised(name string) resource.Promise {
	if s.promise[name] == nil {
		s.promise[name] = resource.Promise{}
	}
	return s.promise[name]
}

// ask puts to every other node that has not said so yet whether the service has stopped there.
func (s *services) ask(run *serviceRun, st standing) {
	if state, _ := run.machine.State(); state != resource.Stopped {
		return
	}
	for node, stopped := range st.Others {
		if stopped || run.asked[node] {
			continue
		}
		run.asked[node] = true
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), s.n.conf().Timers.Lease)
			defer cancel()
			yes := false
			if client, err := s.n.peers.control(node); err == nil {
				reply, err := client.ServiceStopped(ctx, &control.ServiceStopped{Service: run.conf.Name, Epochs: st.Epochs})
				yes = err == nil && reply.Stopped
			}
			s.do(func(cluster.Instant) {
				run.asked[node] = false
				if yes {
					run.stopped[node] = st.tenure
				}
			})
		}()
	}
}

// ServiceStopped implements control.Handler: a node that leads the volumes in newer epochs asks. From then on nothing is started here
// in an older one.
func (n *Node) ServiceStopped(ctx context.Context, r *control.ServiceStopped) (*control.ServiceStoppedReply, error) {
	reply := make(chan bool, 1)
	n.services.do(func(cluster.Instant) {
		n.services.promised(r.Service).Give(r.Epochs)
		run := n.services.runs[r.Service]
		switch {
		case run != nil:
			reply <- run.adopted && run.machine.Clear()
		default: // one that is not configured here any more may still be held
			c := n.services.client
			reply <- c != nil && len(c.Found.Running[r.Service]) == 0
		}
	})
	select {
	case stopped := <-reply:
		return &control.ServiceStoppedReply{Stopped: stopped}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.services.ended:
		return &control.ServiceStoppedReply{}, nil
	}
}

// leave stops the services of a volume that is to be handed over. They stay off in this epoch until resume.
func (s *services) leave(ctx context.Context, volume string, e cluster.Epoch) error {
	return s.await(ctx, func(run *serviceRun) bool {
		if s.volumeOf(run) != volume {
			return true
		}
		run.handing = e
		return run.adopted && run.machine.Clear()
	})
}

// resume lets the services of a volume run again that was not handed over.
func (s *services) resume(volume string) {
	s.do(func(cluster.Instant) {
		for _, run := range s.runs {
			if s.volumeOf(run) == volume {
				run.handing = 0
			}
		}
	})
}

// stopAll stops every service, for the process stops.
func (s *services) stopAll(ctx context.Context) error {
	s.do(func(cluster.Instant) { s.leaving = true })
	return s.await(ctx, func(run *serviceRun) bool {
		return (run.adopted || s.client == nil) && run.machine.Clear() // without a guard this process has started nothing
	})
}

// await returns when all services are as wanted, or names those that are not.
func (s *services) await(ctx context.Context, ok func(*serviceRun) bool) error {
	for {
		reply := make(chan []string, 1)
		if !s.do(func(cluster.Instant) {
			var not []string
			for name, run := range s.runs {
				if !ok(run) {
					state, why := run.machine.State()
					not = append(not, strings.TrimSuffix(fmt.Sprintf("service %q is %s: %s", name, state, why), ": "))
				}
			}
			reply <- not
		}) {
			return nil
		}
		var not []string
		select {
		case not = <-reply:
		case <-s.ended:
			return nil
		}
		if len(not) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("what runs on this node must have stopped before another may run it (R31): %s", strings.Join(not, "; "))
		case <-time.After(s.n.conf().Timers.Tick):
		}
	}
}

// moving is a failover that a service asked for, for it does not run on this node.
type moving struct {
	wanted bool
	asked  bool            // an order is under way
	next   cluster.Instant // when it is given again: there may be no leader, or no other member yet
	told   string          // the error of the last, as last told
}

// moveAway asks for another node, again each RTO target, for as long as the service is failed here.
func (s *services) moveAway(run *serviceRun, now cluster.Instant, st standing) {
	m := &run.moving
	if state, _ := run.machine.State(); state != resource.Failed {
		m.wanted = false
	}
	if !m.wanted || m.asked || now < m.next {
		return
	}
	volume, epoch, rto := s.volumeOf(run), st.tenure.epoch, s.n.conf().Timers.RTO
	m.asked, m.next = true, now.Add(rto)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*rto+s.n.toStop(volume))
		defer cancel()
		_, err := s.n.Failover(ctx, api.FailoverRequest{Volume: volume, Epoch: uint64(epoch)})
		s.do(func(cluster.Instant) {
			m.asked = false
			if err == nil {
				m.wanted, m.told = false, ""
			} else if m.told != err.Error() {
				m.told = err.Error()
				s.n.events.add("service failover", volume, fmt.Sprintf("service %s stays on %s for now: %v", run.conf.Name, s.n.me.Name, err))
			}
		})
	}()
}

// toStop is how long the services of a volume may take to stop: each of their resources as long as it may, and its kill.
func (n *Node) toStop(volume string) (sum time.Duration) {
	for _, c := range n.conf().Services {
		if volume != "" && n.follows(c) != volume {
			continue
		}
		cfg, _ := machineOf(c)
		for _, r := range cfg.Resources {
			sum += r.Limits.Stop + r.Limits.Kill
		}
	}
	return sum
}

func (s *services) states() []control.ServiceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.shown)
}

// machineOf is what a service of the configuration means.
func machineOf(c config.Service) (cfg resource.Config, specs []effect.Spec) {
	cfg = resource.Config{Name: c.Name, Restarts: c.Restarts, Window: c.RestartWindow}
	for _, r := range c.Resources {
		cfg.Resources = append(cfg.Resources, resource.Resource{Kind: r.Kind, Name: r.Name, Interval: r.Interval,
			Limits: resource.Limits{Start: r.StartTimeout, Stop: r.StopTimeout, Monitor: r.MonitorTimeout, Kill: killLimit}})
		specs = append(specs, effect.Spec{Kind: r.Kind, Name: r.Name, Run: r.Run, Start: r.Start, Stop: r.Stop, Monitor: r.Monitor, Interface: r.Interface})
	}
	return cfg, specs
}

// killLimit is how long a kill may take: what outlives SIGKILL for so long waits for a disk.
const killLimit = 5 * time.Second

// serviceStatus is where a service runs: the node on which anything of it may run, or that would run it.
func (v *view) serviceStatus(c config.Service) api.ServiceStatus {
	vol := v.state.Volumes[v.state.Mirrored(c.Volumes[0])]
	out := api.ServiceStatus{Name: c.Name, Node: vol.Primary, State: "unknown"}
	for _, node := range sortedKeys(v.local) {
		for _, s := range v.local[node].Services {
			if s.Name == c.Name && (node == vol.Primary && out.State == "unknown" || s.State != string(resource.Stopped)) {
				out.Node, out.State, out.Reason = node, s.State, s.Reason
			}
		}
	}
	return out
}
