package topology

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lock takes an exclusive lock on a file that other invocations take too.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// newBootID is a random UUID, as the kernel makes one at each boot.
func newBootID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (l *Lab) bootFile(node string) string { return filepath.Join(l.Dir, "boot", node) }

func (l *Lab) writeBootID(n *Node) error {
	if err := os.MkdirAll(filepath.Dir(l.bootFile(n.Name)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(l.bootFile(n.Name), []byte(n.BootID+"\n"), 0o444)
}

// Folder is where a node keeps everything that a power cut may harm.
func (l *Lab) Folder(node string) string { return filepath.Join(l.Dir, "nodes", node) }

// DataDir is a node's data directory.
func (l *Lab) DataDir(node string) string { return filepath.Join(l.Folder(node), "data") }

// Backing is a node's copy of the volume.
func (l *Lab) Backing(node string) string { return filepath.Join(l.Folder(node), "vol.img") }

// Bytes is where the bytes of a node's copy of the volume lie, below whatever fault its disk has.
func (l *Lab) Bytes(node string) (path string, err error) {
	s, err := l.State()
	if err != nil {
		return "", err
	}
	n, err := s.Node(node)
	if err != nil {
		return "", err
	}
	if n.Disk {
		return filepath.Join(l.Dir, "store", node, "data", filepath.Base(l.Backing(node))), nil
	}
	return l.Backing(node), nil
}

// Clock is the file of a node's clock, which package wallclock steps.
func (l *Lab) Clock(node string) string { return filepath.Join(l.Dir, "clock-"+node) }

// Log is where a node's daemon writes, over all its starts.
func (l *Lab) Log(node string) string { return filepath.Join(l.Dir, node+".log") }

// File is the cluster's configuration.
func (l *Lab) File() string { return filepath.Join(l.Dir, "cluster.hcl") }

// PKI is the folder of certificates and keys.
func (l *Lab) PKI() string { return filepath.Join(l.Dir, "pki") }
