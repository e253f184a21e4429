package topology

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/lab/disk"
)

// Parts of a node's disk, as faults of disks name them.
const (
	DiskVolume = Volume    // the backing of the volume
	DiskMeta   = "meta"    // what is kept about the volume
	DiskRaft   = "raft"    // the log of the Raft group
	DiskAll    = "all"     // everything
	diskReady  = "ready\n" // what hadisk says when it is mounted
	diskWait   = 10 * time.Second
)

var diskGlobs = map[string]string{DiskVolume: "vol.img", DiskMeta: "superblock", DiskRaft: "*.wal", DiskAll: ""}

// DiskGlob is the pattern of files that a part means.
func DiskGlob(part string) (string, error) {
	glob, ok := diskGlobs[part]
	if !ok {
		return "", fmt.Errorf("a disk has no part %q: %s, %s, %s or %s is wanted", part, DiskVolume, DiskMeta, DiskRaft, DiskAll)
	}
	return glob, nil
}

func (l *Lab) diskSocket(node string) string { return filepath.Join(l.Dir, "disk-"+node+".sock") }

// Disk is the control of a node's disk.
func (l *Lab) Disk(node string) (*disk.Control, error) {
	s, err := l.State()
	if err != nil {
		return nil, err
	}
	n, err := s.Node(node)
	if err != nil {
		return nil, err
	}
	if !n.Disk {
		return nil, fmt.Errorf("%s has no disk that could be harmed: make the lab with --disks", node)
	}
	return disk.At(l.diskSocket(node)), nil
}

// disks mounts a disk for each daemon's folder.
func (l *Lab) disks(s *State) error {
	if !s.Config.Disks {
		return nil
	}
	if err := disk.Supported(); err != nil {
		return fmt.Errorf("disks that can be harmed need FUSE: %w", err)
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Role == Host {
			continue
		}
		if err := l.mountDisk(s, n); err != nil {
			return fmt.Errorf("the disk of %s: %w", n.Name, err)
		}
		n.Disk = true
	}
	return nil
}

func (l *Lab) mountDisk(s *State, n *Node) error {
	store := filepath.Join(l.Dir, "store", n.Name)
	if err := os.MkdirAll(store, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(l.Dir, "disk-"+n.Name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.Config.Tools, "hadisk"), "mount", l.Folder(n.Name), "--store", store, "--control", l.diskSocket(n.Name))
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	l.reap.Go(func() { _ = cmd.Wait() })
	if said != diskReady {
		why, _ := os.ReadFile(log.Name())
		return fmt.Errorf("hadisk said %q (%w): %s", said, err, bytes.TrimSpace(why))
	}
	return nil
}

// PowerCut takes the power from nodes at once: all their processes end, what was not flushed is lost, and their next
// boot has another id. They stay off until they are started. It returns how much was lost.
func (l *Lab) PowerCut(mode disk.Mode, seed uint64, nodes ...string) (lost int, err error) {
	for _, n := range nodes {
		if err := l.Kill(n); err != nil {
			return 0, err
		}
	}
	for _, n := range nodes {
		d, err := l.Disk(n)
		if err != nil {
			return lost, err
		}
		cut, err := d.PowerCut(mode, seed)
		if err != nil {
			return lost, err
		}
		lost += cut.LostWrites + cut.LostNames
	}
	return lost, l.update(func(s *State) error {
		for _, name := range nodes {
			n, err := s.Node(name)
			if err != nil {
				return err
			}
			n.BootID = newBootID()
			if err := l.writeBootID(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// releaseDisks lets whatever hangs go on.
func (l *Lab) releaseDisks(s *State) (err error) {
	for _, n := range s.Nodes {
		if n.Disk {
			err = errors.Join(err, disk.At(l.diskSocket(n.Name)).Go())
		}
	}
	return err
}

// unmountDisks ends the disks' processes and unmounts what they leave.
func (l *Lab) unmountDisks() (err error) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		deadline := time.Now().Add(diskWait)
		for ids := l.diskPids(); len(ids) > 0 && time.Now().Before(deadline); ids = l.diskPids() {
			for _, id := range ids {
				_ = syscall.Kill(id, sig) // it may have ended by itself
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], filepath.Join(l.Dir, "nodes")+"/") {
			err = errors.Join(err, unix.Unmount(f[1], unix.MNT_DETACH))
		}
	}
	return err
}

// diskPids finds the disks of this lab by what they were started with, also after a crash of whoever started them.
func (l *Lab) diskPids() (ids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is a good one
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it ended
		}
		words := strings.Split(string(b), "\x00")
		if len(words) > 2 && filepath.Base(words[0]) == "hadisk" && strings.HasPrefix(words[2], filepath.Join(l.Dir, "nodes")+"/") {
			if id, err := strconv.Atoi(strings.Split(f, "/")[2]); err == nil && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
