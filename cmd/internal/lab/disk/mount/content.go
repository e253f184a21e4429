package mount

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFlags: the kernel keeps no content but for shared mappings, and sends writes to one file side by side.
const openFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES

// Create makes a file and opens it.
func (f *filesystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir, err := f.changing(in.NodeId, name)
	if err != nil {
		return status(err)
	}
	n, err := f.store.Create(dir, name, in.Mode&0o7777|unix.S_IFREG)
	if err != nil {
		return status(err)
	}
	if err := f.store.Use(n); err != nil {
		return status(err)
	}
	out.Fh, out.OpenFlags = n.ID, openFlags
	return status(f.entry(n, &out.EntryOut))
}

// Open opens a file.
func (f *filesystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	if err := f.store.Use(n); err != nil {
		return status(err)
	}
	out.Fh, out.OpenFlags = n.ID, openFlags
	return fuse.OK
}

// Release closes it.
func (f *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if n, err := f.store.Node(in.Fh); err == nil {
		f.store.Leave(n)
	}
}

// Read reads.
func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return nil, status(err)
	}
	if v := f.faults.strike(f.path(n), Read); v.err != nil {
		return nil, status(v.err)
	}
	got, err := f.store.ReadAt(n, buf, int64(in.Offset))
	return fuse.ReadResultData(buf[:got]), status(err)
}

// Write writes; durably if the file was opened, or the write sent, with (RWF_/O_)DSYNC or SYNC.
func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	ops, durably := []Op{Write}, in.Flags&unix.O_DSYNC != 0 // O_SYNC contains it
	if durably {
		ops = append(ops, Flush)
	}
	v := f.faults.strike(f.path(n), ops...)
	if v.err != nil {
		return 0, status(v.err)
	}
	if err := f.store.WriteAt(n, data, int64(in.Offset), durably && !v.lie); err != nil {
		return 0, status(err)
	}
	return uint32(len(data)), fuse.OK
}

// Fsync makes content durable. One that fails loses what it should have carried for good, as the page cache of Linux
// does: a later one that succeeds says nothing about it.
func (f *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	switch v := f.faults.strike(f.path(n), Flush); {
	case v.err != nil:
		f.store.FailSync(n)
		return status(v.err)
	case !v.lie:
		f.store.Sync(n)
	}
	return fuse.OK
}

// Fallocate allocates, punches and zeroes.
func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	if v := f.faults.strike(f.path(n), Write); v.err != nil {
		return status(v.err)
	}
	return status(f.store.Allocate(n, in.Mode, int64(in.Offset), int64(in.Length)))
}

// Lseek finds data and holes.
func (f *filesystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	at, err := f.store.Seek(n, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(at)
	return status(err)
}
