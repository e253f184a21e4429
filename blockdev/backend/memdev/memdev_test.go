package memdev

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/blocktest"
)

func TestConformance(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device { return New(Config{Size: size}) })
}

func TestConformanceWithIntermediateContents(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device { return New(Config{Size: size, Intermediate: 2}) })
}
