package link

import (
	"context"
	"sync"
)

// pump decides which goroutine sends what a box holds. Whoever put something in and asks for it to be sent sends it
// itself, if nobody else does and as far as the socket takes it: a change of goroutine and the waking of a processor for
// it cost more than the sending. What is left is the writer goroutine's, which may wait.
//
//	nobody --flush--> direct --all sent--> nobody
//	   |                 \--socket full, or enough for others--> handed --run--> writer --all sent--> nobody
//	   \--flush, where nothing can be tried--> run --> writer
type pump struct {
	box  box
	wake chan struct{} // to run: look again; room for one: a reminder, not a count

	mu     sync.Mutex
	owner  owner // of out, and of the box's message
	again  bool  // something was put since the owner looked
	loaded bool  // the box's message is begun and not through
	ended  bool  // run has returned
	err    error // that a direct sender met
}

// owner says who has the right to send.
type owner uint8

const (
	nobody owner = iota
	direct       // a goroutine that called flush
	handed       // left by a direct sender to the writer goroutine, which was woken
	writer       // the writer goroutine
)

// box holds what is to be sent. All but drop is called by the owner alone, one call at a time.
type box interface {
	// load makes the next message of what waits and begins it; false: nothing waits.
	load() (bool, error)
	// sent tells that the message is through; more: something waits for the next one.
	sent() (more bool)
	// drop gives back what waits and the message that is not through. Nothing is put any more.
	drop()
	// out is where messages go.
	out() output
}

// maxTurns is how many messages a direct sender sends before it leaves the rest to the writer goroutine: most of them
// were put by others.
const maxTurns = 4

func newPump(b box) pump { return pump{box: b, wake: make(chan struct{}, 1)} }

// flush sees to it that what was put is sent. It never waits.
func (p *pump) flush() {
	if !p.claim(direct) {
		return
	}
	for range maxTurns {
		some, err := p.box.load()
		switch {
		case err != nil:
			p.hand(false, err)
			return
		case some:
			if done, err := p.box.out().try(); err != nil || !done {
				p.hand(true, err)
				return
			}
			some = p.box.sent()
		}
		if p.rest(some) {
			return
		}
	}
	p.hand(false, nil)
}

// claim makes the caller the sender, or has whoever is look again.
func (p *pump) claim(who owner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return false
	case p.owner == handed && who == writer:
	case p.owner != nobody:
		p.again = true
		return false
	case who == direct && !p.box.out().canTry():
		p.remind()
		return false
	}
	p.owner = who
	return true
}

// rest ends the owner's turn, unless more waits or something was put meanwhile.
func (p *pump) rest(more bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (more || p.again) && !p.ended {
		p.again = false
		return false
	}
	p.leave()
	return true
}

// leave, with mu held, ends an owner's turn. Of one that sent when the end came, it clears away what is left.
func (p *pump) leave() {
	p.owner = nobody
	if p.ended {
		p.box.drop()
	}
}

// hand leaves the rest to the writer goroutine.
func (p *pump) hand(loaded bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		p.leave()
		return
	}
	p.owner, p.loaded, p.err = handed, loaded, err
	p.remind()
}

func (p *pump) remind() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run is the writer goroutine. It returns when ctx ends (nil) or sending fails, and then what waits is dropped.
func (p *pump) run(ctx context.Context) error {
	defer p.end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		if !p.claim(writer) {
			continue
		}
		if err := p.sendAll(ctx); err != nil {
			return err
		}
	}
}

// sendAll sends until nothing waits.
func (p *pump) sendAll(ctx context.Context) error {
	if p.err != nil {
		return p.err
	}
	for ctx.Err() == nil {
		if !p.loaded {
			some, err := p.box.load()
			if err != nil {
				return err
			}
			if !some && p.rest(false) {
				return nil
			}
			if !some {
				continue
			}
		}
		p.loaded = true
		if err := p.box.out().finish(); err != nil {
			return err
		}
		p.loaded = false
		if p.rest(p.box.sent()) {
			return nil
		}
	}
	return nil
}

func (p *pump) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.owner != direct { // else it clears away itself
		p.leave()
	}
}
