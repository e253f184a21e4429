package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/fuse"
	"hacluster/blockdev/frontend/loop"
	"hacluster/blockdev/frontend/nbd/nbdclient"
)

// Server is the process behind one device.
type Server struct {
	place Place
	log   *slog.Logger
	lock  int // its descriptor; never closed: the lock goes with the process
	ctl   net.Listener

	dev   *held
	mount *fuse.Mount
	loop  loop.Device

	opened   chan struct{}  // closed when open has returned
	over     chan struct{}  // closed when the device is gone: the process ends
	going    atomic.Bool    // it goes already
	once     sync.Once      // of gone: letting go may meet an abandonment
	answered sync.WaitGroup // who answers on the control socket

	mu   sync.Mutex
	hold Hold
	size int64 // of the device
}

// held is the volume as the file system sees it: an operation waits until it is answered, or the hold is over.
type held struct {
	*nbdclient.Reconnecting
}

// Discard gives room back.
func (h held) Discard(r blockdev.Range) error { return h.Trim(r, 0) }

// forever is longer than any machine runs.
const forever = 100 * 365 * 24 * time.Hour

// Serve is the whole life of a Server, whose arguments are those that Launch gave. It returns when the device is gone.
func Serve(args []string, log *slog.Logger) error {
	tell := os.NewFile(3, "told") // Launch reads it
	if len(args) != 4 || tell == nil {
		return fmt.Errorf("%s is started by the daemon, not by people: export { attach = \"fuse\" } in cluster.hcl makes it do so", Subcommand)
	}
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT) // who reads our log may go, as the daemon does
	s := &Server{place: Place{Dir: args[0], Devs: args[1], Volume: args[2]}, opened: make(chan struct{}), over: make(chan struct{})}
	s.log = log.With("volume", s.place.Volume, "device", s.place.Link())
	err := s.open(args[3])
	close(s.opened)
	if err != nil {
		fmt.Fprintln(tell, oneLine(err))
		return err
	}
	fmt.Fprintln(tell, "ready")
	tell.Close()
	s.log.Info("attached", "loop", s.loop.Path, "size", s.size)
	s.wait()
	s.ctl.Close()
	s.answered.Wait() // whoever asked for the end is told of it; a conversation is bounded
	return nil
}

func oneLine(err error) string {
	b := []byte(err.Error())
	for i, c := range b {
		if c == '\n' {
			b[i] = ' '
		}
	}
	return string(b)
}

// wait serves until the device is gone. Told to end, it does if nobody uses the device: users would get errors.
func (s *Server) wait() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	for {
		select {
		case <-s.over:
			return
		case <-s.mount.Done():
			if s.going.Load() {
				<-s.over
				return
			}
			s.log.Error("the FUSE file system was unmounted by another: the device gives errors")
			s.abandon("its file system was unmounted")
		case <-term:
			if r := s.release(); r.Busy {
				s.log.Warn("not ended by SIGTERM: the device is in use, and would give errors", "users", r.Users)
			}
		}
	}
}

// open makes the device, in an order in which each step can be cleared away.
func (s *Server) open(socket string) (err error) {
	if err := s.take(); err != nil {
		return err
	}
	ProtectMemory(s.log)
	preallocate()
	if err := s.place.clean(s.log); err != nil {
		return fmt.Errorf("clear away what an earlier server process left: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit/2)
	defer cancel()
	uri := "nbd+unix:///" + url.PathEscape(s.place.Volume) + "?socket=" + url.QueryEscape(socket)
	client, err := nbdclient.Open(ctx, []string{uri}, nbdclient.ReconnectConfig{Limit: forever, Pause: 50 * time.Millisecond, DialTimeout: 5 * time.Second, Accept: s.accept, Log: s.log})
	if err != nil {
		return fmt.Errorf("connect to the daemon: %w", err)
	}
	s.dev, s.size = &held{client}, client.Size()
	defer func() {
		if err != nil {
			client.End(err)
			err = errors.Join(err, s.place.clean(s.log))
		}
	}()
	s.mount, err = fuse.Open(fuse.Config{Dir: s.place.mount(), Name: s.place.Volume, Device: s.dev, Log: s.log})
	if err != nil {
		return err
	}
	if s.loop, err = loop.Attach(s.mount.File()); err != nil {
		return err
	}
	if err := s.place.link(s.loop.Path); err != nil {
		return err
	}
	_ = os.Remove(s.place.control()) // of a killed one: we have the lock
	if s.ctl, err = net.Listen("unix", s.place.control()); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	s.answered.Go(func() { answer(s.ctl, s.do) })
	return nil
}

// take gets the lock: one Server serves a place. The daemon holds it for a moment when it looks whether one does.
func (s *Server) take() (err error) {
	s.lock, err = unix.Open(s.place.lock(), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.place.lock(), err)
	}
	for range 50 {
		if err = unix.Flock(s.lock, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("another server process of %s runs: %w", s.place.Link(), err)
}

// accept judges a connection before anything that is held goes over it.
func (s *Server) accept(c *nbdclient.Client) error {
	t, said := ParseTenure(c.Description())
	s.mu.Lock()
	v, why := s.hold.Judge(t, said)
	s.mu.Unlock()
	switch v {
	case Go:
		s.log.Debug("connected", "epoch", t.Epoch)
		return nil
	case Over:
		go func() {
			<-s.opened
			s.abandon(why)
		}()
	}
	return errors.New(why)
}

func (s *Server) do(r Request) Reply {
	switch r.Do {
	case DoStatus:
		return s.status()
	case DoUsers:
		out := s.status()
		out.Users = users(s.loop)
		return out
	case DoRelease:
		return s.release()
	case DoAbandon:
		s.abandon(r.Why)
		return s.status()
	case DoResize:
		return s.resize()
	}
	return Reply{Error: fmt.Sprintf("%q is not known", r.Do)}
}

func (s *Server) status() Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Reply{PID: os.Getpid(), Device: s.loop.Path, Size: s.size, ID: s.hold.ID(), Epoch: s.hold.Last(), Connected: s.dev.Server() != ""}
}

// releaseTries bounds how often letting go is tried while somebody has the device open who is not seen.
const releaseTries = 50

// release lets the device go if nobody uses it.
func (s *Server) release() Reply {
	out := s.status()
	if s.going.Load() {
		return out
	}
	if out.Users = users(s.loop); len(out.Users) > 0 {
		out.Busy = true
		return out
	}
	err := s.loop.Detach()
	for try := 0; errors.Is(err, loop.ErrBusy); try++ {
		if s.going.Load() { // abandoned meanwhile
			return out
		}
		if out.Users = users(s.loop); len(out.Users) > 0 || try == releaseTries {
			out.Busy = true
			return out
		}
		time.Sleep(10 * time.Millisecond) // somebody looked at it, as udev does, and has closed it already
		err = s.loop.Detach()
	}
	if err != nil {
		out.Error = err.Error()
		return out
	}
	s.going.Store(true)
	s.log.Info("let go", "loop", s.loop.Path)
	s.gone(errors.New("the device was let go"))
	return out
}

// abandon ends what is held with errors and lets the device go, at once or with its last user.
func (s *Server) abandon(why string) {
	if s.going.Swap(true) {
		return
	}
	s.log.Warn("the device gives errors from now on", "loop", s.loop.Path, "why", why, "users", users(s.loop))
	s.dev.End(errors.New(why)) // first: letting go waits for what is in flight
	if err := s.loop.Abandon(); err != nil {
		s.log.Error("the device cannot be let go: the daemon clears it away", "error", err)
	}
	s.gone(errors.New(why))
}

// gone takes away what is left when the device is.
func (s *Server) gone(why error) {
	s.once.Do(func() {
		if err := errors.Join(s.place.unlink(), fuse.Unmount(s.place.mount())); err != nil {
			s.log.Error("not everything was cleared away", "error", err)
		}
		s.dev.End(why)
		close(s.over)
	})
}

// resize has the kernel see the size of the volume, which the newest connection was told.
func (s *Server) resize() Reply {
	size := s.dev.Size()
	var st unix.Stat_t
	err := unix.Stat(s.mount.File(), &st) // the kernel asks for the size, and keeps it
	s.mu.Lock()
	if err == nil && size == s.size { // not at once again: a connection that rests is told when it is made anew
		err = fmt.Errorf("the newest connection was told of %d bytes, as the device has", size)
	}
	s.mu.Unlock()
	if err == nil {
		err = s.loop.Resize()
	}
	if err == nil {
		s.mu.Lock()
		s.size = size
		s.mu.Unlock()
		s.log.Info("resized", "size", size)
	}
	out := s.status()
	if err != nil {
		out.Error = fmt.Sprintf("resize: %v", err)
	}
	return out
}
