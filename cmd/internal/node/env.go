package node

import (
	"hacluster/blockdev"
	"hacluster/blockdev/backend/filedev"
	"hacluster/cmd/internal/identity"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/membership"
)

// Env is what a node takes from the machine that it runs on. The zero value is the machine itself; tests put a clock, a
// network and disks of their own here, to run whole clusters in virtual time. data_dir is a folder of the machine in any
// case.
type Env struct {
	// Now is CLOCK_BOOTTIME.
	Now func() cluster.Instant
	// Boot, when not zero, is the machine's boot id: another one after each loss of power.
	Boot [16]byte
	// Network carries the node's port, NBD and the local socket.
	Network identity.Network
	// Links carry the gossip.
	Links membership.Network
	// Disks are where backings lie.
	Disks Disks
	// Guard is the command that runs a guard of this data directory, which outlives this process.
	Guard []string
	// Fence is the command that holds one fence agent (agent.Hold) and ends with this process; empty: no agent is run.
	Fence []string
}

// Disks open the backings of volumes.
type Disks interface {
	// Fresh reports whether the backing at the path holds nothing yet.
	Fresh(path string) (bool, error)
	// Enlarge makes a file that is shorter than size a sparse one of that length, durably, also while it is held; anything else
	// that is shorter is refused.
	Enlarge(path string, size int64) error
	// Clear has a range read as zeroes, durably, also while the backing is held: it lies behind the end of what is in use.
	Clear(path string, r blockdev.Range) error
	// Open opens and holds it.
	Open(path string, c filedev.Config) (Disk, error)
}

// Disk is an open backing.
type Disk interface {
	blockdev.Device
	// Attachment names the disk as it is attached now (R25).
	Attachment() string
	// Fast reports whether writes return without waiting for the disk.
	Fast() bool
}

// onMachine fills in the machine where nothing else is given.
func (e Env) onMachine() (_ Env, err error) {
	if e.Now == nil {
		e.Now = bootTime
	}
	if e.Boot == [16]byte{} {
		e.Boot, err = readBootID()
	}
	if e.Disks == nil {
		e.Disks = files{}
	}
	return e, err
}

// files are backings that are files and block devices.
type files struct{}

func (files) Fresh(path string) (bool, error) { return filedev.Fresh(path) }

func (files) Enlarge(path string, size int64) error { return filedev.Enlarge(path, size) }

func (files) Clear(path string, r blockdev.Range) error { return filedev.Clear(path, r) }

func (files) Open(path string, c filedev.Config) (Disk, error) {
	d, err := filedev.Open(path, c)
	if err != nil {
		return nil, err // not a *filedev.Dev that is nil
	}
	return d, nil
}
