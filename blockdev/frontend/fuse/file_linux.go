package fuse

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// The nodes: the root is the library's, the file is ours.
const (
	rootNode = fuse.FUSE_ROOT_ID
	fileNode = 2
)

const forever = 365 * 24 * time.Hour

// file answers the kernel.
type file struct {
	fuse.RawFileSystem // what is not answered here is not supported

	name string
	dev  blockdev.Device
	told func(op string, r blockdev.Range, err error)
}

func newFile(cfg Config) *file {
	return &file{RawFileSystem: fuse.NewDefaultRawFileSystem(), name: cfg.Name, dev: cfg.Device, told: func(op string, r blockdev.Range, err error) {
		cfg.Log.Debug("request failed", "op", op, "range", r.String(), "error", err)
	}}
}

// String names the file system in the library's messages.
func (f *file) String() string { return "hacluster" }

// trimmer is implemented by devices that tell a discard from zeroing.
type trimmer interface {
	Discard(r blockdev.Range) error
}

func (f *file) attr(node uint64, out *fuse.Attr) fuse.Status {
	switch node {
	case rootNode:
		out.Ino, out.Mode, out.Nlink = rootNode, unix.S_IFDIR|0o700, 2
	case fileNode:
		size := uint64(f.dev.Size())
		out.Ino, out.Mode, out.Nlink, out.Size, out.Blocks, out.Blksize = fileNode, unix.S_IFREG|0o600, 1, size, size/512, MaxRequest
	default:
		return fuse.ENOENT
	}
	return fuse.OK
}

// GetAttr tells attributes, which the kernel does not keep: the size may change.
func (f *file) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.attr(in.NodeId, &out.Attr)
}

// SetAttr changes nothing, and refuses another size.
func (f *file) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if _, size := in.GetSize(); size {
		return fuse.EPERM
	}
	return f.attr(in.NodeId, &out.Attr)
}

// Lookup finds the file.
func (f *file) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if in.NodeId != rootNode || name != f.name {
		return fuse.ENOENT
	}
	out.NodeId, out.Generation = fileNode, 1
	out.SetEntryTimeout(forever) // the name stays, also when we are dead and asked for it
	return f.attr(fileNode, &out.Attr)
}

// Open opens the file: the kernel keeps no content, and sends writes side by side.
func (f *file) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != fileNode {
		return fuse.EISDIR
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

// OpenDir opens the root.
func (f *file) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

// ReadDir lists the file.
func (f *file) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.Offset == 0 {
		out.AddDirEntry(fuse.DirEntry{Name: f.name, Mode: unix.S_IFREG, Ino: fileNode})
	}
	return fuse.OK
}

// StatFs tells the block size: by it the loop driver tells how large a discard is at least.
func (f *file) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen, out.Files = blockdev.BlockSize, blockdev.BlockSize, 255, 1
	out.Blocks = uint64(f.dev.Size()) / blockdev.BlockSize
	return fuse.OK
}

// Read reads; what lies behind the end is not there.
func (f *file) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	size := f.dev.Size()
	if in.Offset >= uint64(size) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(int64(len(buf)), size-int64(in.Offset))]
	n, err := f.dev.ReadAt(buf, int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), f.outcome("read", in.Offset, uint64(len(buf)), err)
}

// Write writes; durably if the file was opened, or the write sent, with (RWF_/O_)DSYNC or SYNC.
func (f *file) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	write := f.dev.WriteAt
	if in.Flags&unix.O_DSYNC != 0 { // O_SYNC contains it
		write = f.dev.WriteFUA
	}
	n, err := write(data, int64(in.Offset))
	return uint32(n), f.outcome("write", in.Offset, uint64(len(data)), err)
}

// Fsync makes durable what was written.
func (f *file) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.NodeId != fileNode {
		return fuse.OK
	}
	return f.outcome("flush", 0, 0, f.dev.Flush())
}

// The modes of fallocate that a loop device uses: for a discard, for zeroes that may give room back, and for those that may not.
const (
	punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zero  = unix.FALLOC_FL_ZERO_RANGE
)

// Fallocate discards and zeroes. There is nothing to allocate.
func (f *file) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	r := blockdev.Range{Off: int64(in.Offset), Len: int64(in.Length)}
	var err error
	switch t, trims := f.dev.(trimmer); {
	case in.Mode == punch && trims:
		err = t.Discard(r)
	case in.Mode == punch:
		err = f.dev.Zero(r, true)
	case in.Mode&^uint32(unix.FALLOC_FL_KEEP_SIZE) == zero:
		err = f.dev.Zero(r, false)
	default:
		return fuse.EINVAL
	}
	return f.outcome("zero", in.Offset, in.Length, err)
}

// outcome is what the kernel is told: its own number where the device has one.
func (f *file) outcome(op string, off, n uint64, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	f.told(op, blockdev.Range{Off: int64(off), Len: int64(n)}, err)
	switch {
	case errors.Is(err, blockdev.ErrNoSpace):
		return fuse.Status(unix.ENOSPC)
	case errors.Is(err, blockdev.ErrRange):
		return fuse.EINVAL
	}
	return fuse.EIO
}
