package meta

import (
	"strings"
	"testing"
)

// A joined backing is another one as soon as one of its files is, and another incarnation as soon as one of its disks was attached anew.
func TestAttachmentOfSeveralDevices(t *testing.T) {
	const data, wal = "file:8.1:12.abc:7", "file:8.2:13.def:8"
	was := JoinedAttachment([]string{data, wal})
	if len(was) > MaxAttachment {
		t.Fatalf("%q has %d bytes, %d fit", was, len(was), MaxAttachment)
	}
	for _, c := range []struct {
		name                 string
		now                  []string
		equal, same, certain bool
	}{
		{"as it was", []string{data, wal}, true, true, true},
		{"a disk attached anew", []string{data, "file:8.2:13.def:9"}, false, true, true},
		{"another number of a disk", []string{"file:8.9:12.abc:7", wal}, false, true, true},
		{"another file", []string{data, "file:8.2:14.def:8"}, false, false, true},
		{"a file of another birth", []string{"file:8.1:12.abd:7", wal}, false, false, true},
		{"in another order", []string{wal, data}, false, false, true},
		{"one less", []string{data}, false, false, true},
		{"a block device instead", []string{data, "blk:8:2:8"}, false, false, false},
	} {
		now := JoinedAttachment(c.now)
		if (now == was) != c.equal {
			t.Errorf("%s: %q and %q", c.name, was, now)
		}
		if why, same := SameBacking(was, now); same != c.same || same == (why != "") {
			t.Errorf("%s: the same %t (%s)", c.name, same, why)
		}
		if why, no := Unproven(was, now); no == c.certain {
			t.Errorf("%s: unproven %t (%s)", c.name, no, why)
		}
	}
	for _, unproven := range []string{"blk:8:2:8", "file:8.2:14:8"} {
		a := JoinedAttachment([]string{data, unproven})
		if _, no := Unproven(a, a); !no {
			t.Errorf("%s beside a file: nothing proves that it is the same device after a restart", unproven)
		}
	}
	for _, one := range []string{data, "blk:8:2:8"} {
		if _, same := SameBacking(was, one); same || !strings.HasPrefix(was, "joined:") {
			t.Errorf("%s is taken for %s", one, was)
		}
	}
}
