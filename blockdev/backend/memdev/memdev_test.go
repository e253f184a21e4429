package memdev

import (
	"slices"
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

func TestDifferingNamesThePagesWhoseContentDiffers(t *testing.T) {
	a, b := New(Config{Size: 16 * pageSize}), New(Config{Size: 16 * pageSize})
	write(t, a, pageSize, of(1, 3*pageSize))
	write(t, b, pageSize, of(1, 3*pageSize))
	write(t, a, 6*pageSize, of(0, pageSize)) // zeroes are what an absent page holds
	if d := Differing(a, b); len(d) != 0 {
		t.Fatalf("equal devices differ in %v", d)
	}
	write(t, b, 2*pageSize+7, of(2, 1))
	write(t, a, 9*pageSize, of(3, pageSize))
	want := []blockdev.Range{{Off: 2 * pageSize, Len: pageSize}, {Off: 9 * pageSize, Len: pageSize}}
	if d := Differing(a, b); !slices.Equal(d, want) {
		t.Fatalf("%v, want %v", d, want)
	}
}
