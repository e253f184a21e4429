package mount

import (
	"path"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/lab/disk/unflushed"
)

// Lookup finds a name.
func (f *filesystem) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	n, err := f.store.Lookup(dir, name)
	if err != nil {
		return status(err)
	}
	return status(f.entry(n, out))
}

// changing finds the directory of a change of names, which faults of writing may strike.
func (f *filesystem) changing(id uint64, name string) (*unflushed.Node, error) {
	dir, err := f.store.Node(id)
	if err != nil {
		return nil, err
	}
	return dir, f.faults.strike(func() string { return path.Join(f.store.Path(dir), name) }, Write).err
}

func (f *filesystem) made(id uint64, name string, out *fuse.EntryOut, do func(dir *unflushed.Node) (*unflushed.Node, error)) fuse.Status {
	dir, err := f.changing(id, name)
	if err != nil {
		return status(err)
	}
	n, err := do(dir)
	if err != nil {
		return status(err)
	}
	return status(f.entry(n, out))
}

// Mknod makes files, sockets and fifos.
func (f *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.made(in.NodeId, name, out, func(dir *unflushed.Node) (*unflushed.Node, error) { return f.store.Create(dir, name, in.Mode) })
}

// Mkdir makes a directory.
func (f *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.made(in.NodeId, name, out, func(dir *unflushed.Node) (*unflushed.Node, error) { return f.store.Mkdir(dir, name, in.Mode&0o7777) })
}

// Symlink makes a symbolic link.
func (f *filesystem) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.made(in.NodeId, name, out, func(dir *unflushed.Node) (*unflushed.Node, error) { return f.store.Symlink(dir, name, target) })
}

// Readlink reads one.
func (f *filesystem) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := f.store.Node(in.NodeId)
	if err != nil {
		return nil, status(err)
	}
	to, err := f.store.Readlink(n)
	return []byte(to), status(err)
}

// Unlink takes the name of a file away.
func (f *filesystem) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	dir, err := f.changing(in.NodeId, name)
	if err != nil {
		return status(err)
	}
	return status(f.store.Unlink(dir, name))
}

// Rmdir removes an empty directory.
func (f *filesystem) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	dir, err := f.changing(in.NodeId, name)
	if err != nil {
		return status(err)
	}
	return status(f.store.Rmdir(dir, name))
}

// Rename moves a name.
func (f *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	dir, err := f.changing(in.NodeId, from)
	if err != nil {
		return status(err)
	}
	newDir, err := f.store.Node(in.Newdir)
	if err != nil {
		return status(err)
	}
	return status(f.store.Rename(dir, from, newDir, to, in.Flags&unix.RENAME_NOREPLACE == 0))
}

// OpenDir reads a directory once, for as long as it is open.
func (f *filesystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	dir, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	entries, err := f.store.Entries(dir)
	if err != nil {
		return status(err)
	}
	list := []fuse.DirEntry{{Name: ".", Mode: syscall.S_IFDIR, Off: 1}, {Name: "..", Mode: syscall.S_IFDIR, Off: 2}}
	for i, e := range entries {
		d := fuse.DirEntry{Name: e.Name(), Mode: syscall.S_IFREG, Off: uint64(i) + 3}
		if e.IsDir() {
			d.Mode = syscall.S_IFDIR
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				d.Mode, d.Ino = st.Mode, st.Ino
			}
		}
		list = append(list, d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastDir++
	f.lists[f.lastDir], out.Fh = list, f.lastDir
	return fuse.OK
}

// ReadDir goes on where the kernel is.
func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	f.mu.Lock()
	list := f.lists[in.Fh]
	f.mu.Unlock()
	for in.Offset < uint64(len(list)) && out.AddDirEntry(list[in.Offset]) {
		in.Offset++
	}
	return fuse.OK
}

// ReleaseDir forgets the list.
func (f *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.lists, in.Fh)
}

// FsyncDir makes names durable.
func (f *filesystem) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	dir, err := f.store.Node(in.NodeId)
	if err != nil {
		return status(err)
	}
	v := f.faults.strike(f.path(dir), Flush)
	if v.err == nil && !v.lie {
		f.store.SyncDir(dir)
	}
	return status(v.err)
}
