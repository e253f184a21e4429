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
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		n := newNode(t)
		n.lead(t, nbdtest.NewMem(size))
		return dial(t, nbdclient.Config{}, n.uri())
	})
}

func TestReconnectingConformance(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		n := newNode(t)
		n.lead(t, nbdtest.NewMem(size))
		return open(t, nbdclient.ReconnectConfig{}, n.uri())
	})
}
