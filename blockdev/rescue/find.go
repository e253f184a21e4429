package rescue

import (
	"errors"
	"fmt"
	"time"

	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
)

// Nothing about an image that is closed, or about its label, keeps a replica from being opened: the promise is given up
// instead. A label that says "kept until it stopped" is replaced before the replica is written to: a later process would
// believe it.

// find takes in what is there of one image.
func (s *Shelf) find(id string, inPieces bool) error {
	i := &image{id: id}
	p, err := s.cfg.Room.Label(id)
	if errors.Is(err, ErrNone) {
		return s.unlabelled(i, inPieces)
	}
	i.closed = true
	s.kept = append(s.kept, i)
	if err != nil { // what it says is not known
		i.claims = true
		s.look(i)
		s.giveUp(i, fmt.Errorf("its label cannot be read: %w", err))
		return nil
	}
	if i.label, err = decodeLabel(p); err != nil {
		i.label.why = err.Error()
		s.look(i)
		return nil
	}
	i.claims = i.label.base == baseStopped
	switch err = s.look(i); {
	case errors.Is(err, undo.ErrNone): // it was being removed
		s.kept = s.kept[:len(s.kept)-1]
		s.giveUp(i, errors.New("its image was not there at a start"))
		s.sweep(id)
	case err != nil:
		s.giveUp(i, err)
	case i.label.base == baseRunning:
		s.giveUp(i, errors.New("haclusterd has ended without stopping in order, so what was written meanwhile is not known"))
	case i.label.base == baseStopped:
		s.resume(i)
	}
	return nil
}

// resume goes on with keeping what an image does not hold. From the label on an end without Stop ends it.
func (s *Shelf) resume(i *image) {
	if n, err := s.size(i.id); err != nil || n > maxResumed {
		s.giveUp(i, errors.Join(err, fmt.Errorf("its file has %d bytes; of more than %d not all is read at a start, so what is written from then on is not kept", n, maxResumed)))
		return
	}
	a, err := undo.Open(s.area(i.id), s.src)
	switch {
	case err != nil:
		s.giveUp(i, err)
		return
	case !a.Live():
		s.giveUp(i, errors.New(a.Damage()))
		return
	}
	running := i.label
	running.base = baseRunning
	if err := s.cfg.Room.SetLabel(i.id, running.encode()); err != nil {
		s.giveUp(i, errors.Join(fmt.Errorf("its label cannot be written: %w", err), a.Close()))
		return
	}
	a.Relax()
	i.area, i.label, i.claims = a, running, false
}

// look reads whose an image is. Of a damaged one nothing is known.
func (s *Shelf) look(i *image) (err error) {
	i.head, err = s.headOf(i.id)
	i.foreign = errors.Is(err, ErrForeign)
	return err
}

// elsewhere: it may be a way back or whole where it belongs, so nothing is written to it.
func (s *Shelf) elsewhere(i *image) bool {
	return i.foreign && (i.head.Cluster != s.cfg.Cluster || i.head.Volume != s.cfg.Volume)
}

func (s *Shelf) size(id string) (int64, error) {
	f, err := s.cfg.Room.Image(id).Open()
	if err != nil {
		return 0, err
	}
	n, err := f.Size()
	return n, errors.Join(err, f.Close())
}

// sweep removes what is left of an image that is none, as far as it is ours.
func (s *Shelf) sweep(id string) {
	if err := s.cfg.Room.Remove(id); err != nil && s.cfg.Left != nil {
		s.cfg.Left(id, err)
	}
}

// giveUp ends the promise of an image that was found.
func (s *Shelf) giveUp(i *image, why error) {
	if i.label.why = why.Error(); i.label.base != basePart {
		i.label.base = baseEnded
	}
	if !i.claims || s.elsewhere(i) {
		return
	}
	if err := s.disclaim(i.id, &i.label); err != nil {
		i.label.why += fmt.Sprintf("; its label says otherwise, and cannot be changed: %v: export or delete it before haclusterd is restarted", err)
		return
	}
	i.claims = false
}

// disclaim stores a label that promises nothing, in whichever way is left.
func (s *Shelf) disclaim(id string, l *label) error {
	p := l.encode()
	err := s.cfg.Room.SetLabel(id, p)
	if err == nil {
		return nil
	}
	if spoilt := s.cfg.Room.Spoil(id, p); spoilt != nil {
		return errors.Join(err, spoilt)
	}
	return nil
}

// unlabelled is an image whose resync has not ended, or has just now, or that a superblock from before belongs to.
func (s *Shelf) unlabelled(i *image, inPieces bool) error {
	if err := s.look(i); i.foreign {
		return s.shut(i, err)
	}
	a, err := undo.Open(s.area(i.id), s.src)
	switch {
	case errors.Is(err, meta.ErrMismatch):
		return s.shut(i, fmt.Errorf("it is of the replica that was here before: %w", err))
	case err != nil && !inPieces:
		return s.shut(i, err)
	case err != nil: // it is the way back of a replica in pieces
		return err
	}
	i.area = a
	if !a.Live() && a.Damage() == "" { // a crash before it was made
		s.sweep(i.id)
		return nil
	}
	if s.live != nil {
		return errors.Join(fmt.Errorf("beside %s: both belong to a resync that has not ended: set one of the directories aside", s.live.id), a.Close())
	}
	s.live = i
	if inPieces {
		return nil
	}
	_, err = s.Finish(time.Now())
	return err
}

// shut closes an image that nothing can be added to. One that could not be labelled would be taken for that of a resync that
// goes on.
func (s *Shelf) shut(i *image, why error) error {
	i.closed = true
	i.label = label{closedMillis: time.Now().UnixMilli(), base: baseEnded, why: why.Error()}
	s.kept = append(s.kept, i)
	if s.elsewhere(i) {
		return nil
	}
	if err := s.disclaim(i.id, &i.label); err != nil {
		return fmt.Errorf("label it, for it is no way back (%w): %w", why, err)
	}
	return nil
}
