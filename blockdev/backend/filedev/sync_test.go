package filedev

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

func fine() error { return nil }

func fails() error { return syscall.EIO }

// faults.md D90: a flush that failed is never made good by a later one.
func TestD90FailedFlushIsFinal(t *testing.T) {
	s := newSyncs()
	if err := s.flush(fine); err != nil {
		t.Fatal(err)
	}
	if err := s.flush(fails); !errors.Is(err, syscall.EIO) {
		t.Errorf("the failing flush: %v", err)
	}
	called := false
	call := func() error { called = true; return nil }
	if err := s.flush(call); !errors.Is(err, syscall.EIO) {
		t.Errorf("the next flush: %v, want the first error", err)
	}
	if err := s.durably(call); !errors.Is(err, syscall.EIO) {
		t.Errorf("a durable write after it: %v, want the first error", err)
	}
	if called {
		t.Error("the disk was asked again after a failed flush")
	}
}

func TestD90FailedDurableWriteFailsFlushes(t *testing.T) {
	s := newSyncs()
	if err := s.durably(func() error { return unix.EOPNOTSUPP }); !unsupported(err) {
		t.Errorf("a kernel without durable writes: %v", err)
	}
	if err := s.flush(fine); err != nil {
		t.Errorf("flush after that: %v", err)
	}
	if err := s.durably(fails); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if err := s.flush(fine); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush after a failed durable write: %v, want its error", err)
	}
}

// A flush covers what was written before it was called, so one that is running already is too early to share; those
// who wait for the next one share it.
func TestFlushesRunInRoundsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSyncs()
		var running, rounds atomic.Int64
		release := make(chan struct{})
		do := func() error {
			if running.Add(1) > 1 {
				t.Error("two at a time")
			}
			defer running.Add(-1)
			rounds.Add(1)
			<-release
			return nil
		}
		done := make(chan error, 10)
		for range 10 {
			go func() { done <- s.flush(do) }()
			synctest.Wait()
		}
		if rounds.Load() != 1 {
			t.Errorf("%d rounds began, want 1", rounds.Load())
		}
		close(release)
		for range 10 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if rounds.Load() != 2 {
			t.Errorf("%d rounds for 10 flushes, want 2", rounds.Load())
		}
	})
}

func TestErrorOfARoundReachesAllWhoShareItAndAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSyncs()
		release := make(chan struct{})
		done := make(chan error, 5)
		go func() { done <- s.flush(func() error { <-release; return syscall.EIO }) }()
		synctest.Wait()
		for range 4 { // the kernel tells the error once; these would be told "durable"
			go func() { done <- s.flush(fine) }()
		}
		synctest.Wait()
		close(release)
		for range 5 {
			if err := <-done; !errors.Is(err, syscall.EIO) {
				t.Errorf("%v, want EIO for everybody", err)
			}
		}
	})
}

// A durable write beside a flush may take the report of what the flush should have made durable.
func TestFlushWaitsForDurableWritesBesideIt(t *testing.T) {
	for name, outcome := range map[string]error{"good": nil, "failed": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSyncs()
				release := make(chan struct{})
				wrote, flushed := make(chan error, 1), make(chan error, 1)
				go func() { wrote <- s.durably(func() error { <-release; return outcome }) }()
				synctest.Wait()
				go func() { flushed <- s.flush(fine) }()
				synctest.Wait()
				select {
				case err := <-flushed:
					t.Fatalf("flush returned %v beside a durable write", err)
				default:
				}
				late := make(chan error, 1) // began after the flush: not waited for
				hold := make(chan struct{})
				go func() { late <- s.durably(func() error { <-hold; return nil }) }()
				synctest.Wait()
				close(release)
				if err := <-flushed; !errors.Is(err, outcome) {
					t.Errorf("flush: %v, want %v", err, outcome)
				}
				close(hold)
				<-wrote
				if err := <-late; err != nil {
					t.Errorf("the later durable write: %v", err)
				}
			})
		})
	}
}

// On the device: a descriptor that cannot sync stands for a disk that fails to.
func TestD90DeviceStaysFailed(t *testing.T) {
	d := open(t, image(t, mib), Config{Size: mib, Mode: Buffered})
	good := d.fd
	d.fd = -1
	if err := d.Flush(); !errors.Is(err, unix.EBADF) {
		t.Errorf("flush on a failing disk: %v", err)
	}
	d.fd = good
	if err := d.Flush(); err == nil {
		t.Error("a later flush succeeded")
	}
	if _, err := d.WriteFUA(fill(4096, 1), 0); err == nil {
		t.Error("a later durable write succeeded")
	}
	if _, err := d.WriteAt(fill(4096, 1), 0); err != nil {
		t.Errorf("a plain write: %v", err)
	}
}
