package node

import (
	"context"
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
)

// When a volume shrinks, what lay behind its new end stays on the backings. Before it grows over that again, each replica has it
// read as zeroes, so that nobody sees old content, and no two replicas another.

// clearStep is how much is cleared at once: it counts as one disk operation (R26).
const clearStep = 64 << 20

// clearTail clears r, which lies behind the end of an open replica of the given record, while it is in use. The replica cannot be
// opened with another size meanwhile, and two do not clear at once: one that was asked for long ago never meets what is part of
// the volume by now.
func (v *volumes) clearTail(ctx context.Context, vol *cluster.Volume, device string, r blockdev.Range) error {
	v.mu.Lock()
	h := v.all[vol.Name]
	v.mu.Unlock()
	if h == nil || h.id != vol.ID || h.broken != "" {
		return fmt.Errorf("the replica of volume %s is not open", vol.Name)
	}
	select {
	case h.tail <- struct{}{}:
		defer func() { <-h.tail }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return v.clear(vol.Name, device, r, func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if h.retired || h.size != vol.Size || h.resized != vol.Resized {
			return fmt.Errorf("the replica of volume %s is open with %d bytes, not with %d", vol.Name, h.size, vol.Size)
		}
		return ctx.Err()
	})
}

// prepare is for the backing of a replica that is made while its volume is about to grow: nobody else has it.
func (v *volumes) prepare(vol *cluster.Volume, device string) error {
	if err := v.n.env.Disks.Enlarge(device, vol.Next); err != nil {
		return err
	}
	return v.clear(vol.Name, device, blockdev.Range{Off: vol.Size, Len: vol.Cleared(vol.Next) - vol.Size}, func() error { return nil })
}

// clear clears r of a backing step by step as long as may allows it.
func (v *volumes) clear(volume, device string, r blockdev.Range, may func() error) error {
	for at := r.Off; at < r.End(); at += clearStep {
		if err := may(); err != nil {
			return fmt.Errorf("%d of %d bytes behind its end are cleared, which begins anew at the next try: %w", at-r.Off, r.Len, err)
		}
		if err := v.clearOne(volume, device, blockdev.Range{Off: at, Len: min(clearStep, r.End()-at)}); err != nil {
			return err
		}
	}
	if r.Len > 0 {
		failpoint.Hit(failpoint.ResizeCleared)
	}
	return nil
}

func (v *volumes) clearOne(volume, device string, r blockdev.Range) error {
	defer v.n.disk.Begin("clear what lies behind the end of volume " + volume)()
	return v.n.env.Disks.Clear(device, r)
}
