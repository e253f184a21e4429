package blockdev

import (
	"syscall"
	"unsafe"
)

// A request of 1 MiB to a disk is 256 segments where its memory is of single pages and one where it is of a huge page: on virtual
// disks that alone has been half of what such a request takes. So large buffers are cut from slabs of one huge page, which the
// kernel gives on request (MADV_HUGEPAGE; /sys/kernel/mm/transparent_hugepage/enabled is "madvise" or "always") or not: nothing
// but speed depends on it. A slab is memory of Go's heap, so it lives as long as any buffer cut from it: one buffer that is held
// may keep the memory of four.
const (
	hugePage     = 2 << 20
	minSlabClass = 19 // 512 KiB, four of a slab: more would let one that is held keep more; from 4 MiB on each has slabs of its own
)

// slab returns n bytes of memory, a multiple of hugePage that starts at one.
func slab(n int) []byte {
	raw := make([]byte, n+hugePage)
	// The heap may have single pages here from what was here before: they are given back first, also those around the slab. Their
	// content is not needed.
	_ = syscall.Madvise(raw, syscall.MADV_DONTNEED)
	skip := -int(uintptr(unsafe.Pointer(&raw[0]))) & (hugePage - 1)
	p := raw[skip : skip+n : skip+n]
	_ = syscall.Madvise(p, syscall.MADV_HUGEPAGE)
	return p
}

// newSlab cuts a slab into buffers of a class: one is returned, the others wait in its pool.
func newSlab(class int8) *Buf {
	size := 1 << class
	p := slab(max(size, hugePage))
	for ; len(p) > size; p = p[size:] {
		pools[class-minClass].Put(&Buf{whole: p[:size:size], class: class})
	}
	return &Buf{whole: p, class: class}
}
