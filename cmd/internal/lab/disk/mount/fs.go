// Package mount shows an unflushed.Store to the kernel through FUSE, with faults on demand: what a disk does that fails,
// fills up, slows down, hangs, rots or lies. Locks (flock, OFD) are the kernel's own; everything that a store knows works as
// on ext4: sparse files, fallocate, O_DIRECT, O_DSYNC, shared mappings, sockets. Attributes and names are never cached by the
// kernel, and content only by mappings, so that a fault strikes each operation and a power cut leaves nothing stale.
//
// Program hadisk serves a Mount and its control socket.
package mount

import (
	"errors"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/lab/disk/unflushed"
)

// filesystem answers the kernel. Handles of files are numbers of nodes: the kernel tells the node with each request.
type filesystem struct {
	fuse.RawFileSystem // what is not answered here is not supported

	store  *unflushed.Store
	faults *faults

	mu      sync.Mutex
	lists   map[uint64][]fuse.DirEntry // of open directories
	lastDir uint64
}

func newFilesystem(s *unflushed.Store) *filesystem {
	return &filesystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), store: s, faults: newFaults(), lists: map[uint64][]fuse.DirEntry{}}
}

// String names the file system in go-fuse's messages.
func (f *filesystem) String() string { return "hadisk" }

func status(err error) fuse.Status {
	var e unix.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.As(err, &e):
		return fuse.Status(e)
	}
	return fuse.EIO
}

func (f *filesystem) attr(n *unflushed.Node, out *fuse.Attr) error {
	st, err := f.store.Stat(n)
	if err != nil {
		return err
	}
	out.Ino, out.Size, out.Blocks = st.Ino, uint64(st.Size), uint64(st.Blocks)
	out.Atime, out.Mtime, out.Ctime = uint64(st.Atim.Sec), uint64(st.Mtim.Sec), uint64(st.Ctim.Sec)
	out.Atimensec, out.Mtimensec, out.Ctimensec = uint32(st.Atim.Nsec), uint32(st.Mtim.Nsec), uint32(st.Ctim.Nsec)
	out.Mode, out.Nlink, out.Owner = st.Mode, uint32(st.Nlink), fuse.Owner{Uid: st.Uid, Gid: st.Gid}
	out.Rdev, out.Blksize = uint32(st.Rdev), uint32(st.Blksize)
	return nil
}

func (f *filesystem) entry(n *unflushed.Node, out *fuse.EntryOut) error {
	out.NodeId, out.Generation = n.ID, 1
	return f.attr(n, &out.Attr)
}

// StatFs tells about room.
func (f *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	st, err := f.store.Statfs()
	if err != nil {
		return status(err)
	}
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree
	out.Bsize, out.NameLen, out.Frsize = uint32(st.Bsize), uint32(st.Namelen), uint32(st.Frsize)
	return fuse.OK
}

// GetAttr tells attributes.
func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	return status(f.attr(n, &out.Attr))
}

// SetAttr changes attributes; the size is content, with its faults.
func (f *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	if mode, ok := in.GetMode(); ok {
		err = errors.Join(err, f.store.Chmod(n, mode))
	}
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if hasUID || hasGID {
		err = errors.Join(err, f.store.Chown(n, int(int32(uid)), int(int32(gid))))
	}
	if size, ok := in.GetSize(); ok && err == nil {
		err = f.truncate(n, int64(size))
	}
	if ts, ok := times(in); ok {
		err = errors.Join(err, f.store.Utimes(n, ts))
	}
	if err != nil {
		return status(err)
	}
	return status(f.attr(n, &out.Attr))
}

func (f *filesystem) truncate(n *unflushed.Node, size int64) error {
	if v := f.faults.strike(f.path(n), Write); v.err != nil {
		return v.err
	}
	if err := f.store.Use(n); err != nil {
		return err
	}
	defer f.store.Leave(n)
	return f.store.Truncate(n, size)
}

func times(in *fuse.SetAttrIn) (ts [2]unix.Timespec, ok bool) {
	ts[0].Nsec, ts[1].Nsec = unix.UTIME_OMIT, unix.UTIME_OMIT
	if t, has := in.GetATime(); has {
		ts[0], ok = unix.NsecToTimespec(t.UnixNano()), true
	}
	if t, has := in.GetMTime(); has {
		ts[1], ok = unix.NsecToTimespec(t.UnixNano()), true
	}
	return ts, ok
}

func (f *filesystem) path(n *unflushed.Node) func() string {
	return func() string { return f.store.Path(n) }
}
