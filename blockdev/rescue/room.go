package rescue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hacluster/blockdev/undo"
)

// Room is where the images of a replica lie. One goroutine at a time uses an image's part of it.
type Room interface {
	// IDs names what is there, also what a crash left unfinished.
	IDs() ([]string, error)
	// Make has room for an image, durably: Image(id) can be created in it.
	Make(id string) error
	// Image is the file of an image.
	Image(id string) undo.Place
	// Label is what SetLabel stored; ErrNone: it stored nothing.
	Label(id string) ([]byte, error)
	// SetLabel replaces the label as a whole, durably.
	SetLabel(id string, p []byte) error
	// Spoil writes over the label where it stands, durably, without taking new room for it; a crash leaves it as it was, the
	// new one, or one that cannot be read. When it fails, the label may be as it was.
	Spoil(id string, p []byte) error
	// Ledger is what SetLedger stored; ErrNone: it stored nothing.
	Ledger() ([]byte, error)
	// SetLedger replaces the one ledger of all images as a whole, durably. No image's removal removes it.
	SetLedger(p []byte) error
	// Closed tells that an image is closed: for what is done with it from now on, nobody waits.
	Closed(id string)
	// Remove has everything of an image gone durably: the image before the label, so that no crash leaves an image that
	// looks as if its resync had not ended. It removes nothing else. ErrOthers: there is something else; a label stays then.
	Remove(id string) error
}

// Dir is the Room in a directory of a file system.
type Dir struct {
	// Path of the directory. It is made with the first image.
	Path string
	// Space is what the images take room of; see undo.Dir.
	Space *undo.Space
}

var _ Room = (*Dir)(nil)

// IDs implements Room.
func (d *Dir) IDs() (ids []string, err error) {
	all, err := os.ReadDir(d.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range all {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Make implements Room.
func (d *Dir) Make(id string) error {
	if err := os.MkdirAll(filepath.Join(d.Path, id), 0o700); err != nil {
		return noRoom(err)
	}
	return errors.Join(syncDir(d.Path), syncDir(filepath.Dir(d.Path)))
}

// Image implements Room.
func (d *Dir) Image(id string) undo.Place {
	return &undo.Dir{Path: filepath.Join(d.Path, id, "image"), Space: d.Space}
}

func (d *Dir) label(id string) string { return filepath.Join(d.Path, id, "label") }

// Label implements Room.
func (d *Dir) Label(id string) ([]byte, error) { return readWhole(d.label(id)) }

func (d *Dir) ledger() string { return filepath.Join(d.Path, "ledger") }

// Ledger implements Room.
func (d *Dir) Ledger() ([]byte, error) { return readWhole(d.ledger()) }

func readWhole(path string) ([]byte, error) {
	p, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return p, err
}

// SetLabel implements Room.
func (d *Dir) SetLabel(id string, p []byte) error { return replace(d.label(id), p) }

// SetLedger implements Room.
func (d *Dir) SetLedger(p []byte) error {
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return err
	}
	return errors.Join(replace(d.ledger(), p), syncDir(filepath.Dir(d.Path)))
}

// replace writes beside, flushes, renames, and flushes the directory: a torn write leaves the file before.
func replace(path string, p []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Spoil implements Room. What cannot be written over is cut off.
func (d *Dir) Spoil(id string, p []byte) error {
	f, err := os.OpenFile(d.label(id), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, 0)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = f.Truncate(0)
		if err == nil {
			err = f.Sync()
		}
	}
	return errors.Join(err, f.Close(), syncDir(filepath.Join(d.Path, id)))
}

// Closed implements Room.
func (d *Dir) Closed(string) {}

// Remove implements Room.
func (d *Dir) Remove(id string) error {
	dir := filepath.Join(d.Path, id)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.Image(id).Remove(); err != nil {
		return err
	}
	if err := others(dir); err != nil {
		return err
	}
	for _, path := range []string{d.label(id) + ".new", d.label(id), dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(d.Path)
}

// others tells what is in the directory of an image beside its label.
func others(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name() != "label" && e.Name() != "label.new" {
			return fmt.Errorf("%w: %s: move it to where no rescue images are", ErrOthers, filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
