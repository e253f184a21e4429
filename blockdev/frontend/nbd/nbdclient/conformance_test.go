package nbdclient_test

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/blocktest"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// A device seen through server and client is still a device.
func TestDeviceConformance(t *testing.T) {
	for name, cfg := range map[string]nbdclient.Config{"structured": {}, "simple": {Simple: true}} {
		t.Run(name, func(t *testing.T) {
			blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
				n := newNode(t)
				n.lead(t, nbdtest.NewMem(size))
				return dial(t, cfg, n.uri())
			})
		})
	}
	t.Run("reconnecting", func(t *testing.T) {
		blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
			n := newNode(t)
			n.lead(t, nbdtest.NewMem(size))
			return open(t, nbdclient.ReconnectConfig{}, n.uri())
		})
	})
}
