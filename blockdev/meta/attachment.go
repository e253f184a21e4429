package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// SameBacking is for what else is bound to a backing beside the superblock: whether two attachments can be of one, and
// if not, why.
func SameBacking(stored, now string) (why string, same bool) { return sameBacking(stored, now) }

// Unproven reports whether two attachments of different boots, or that differ, need not be of one backing although
// nothing speaks against it, and why. What is believed about a backing without looking at its content asks for proof: a
// block device has none, for another disk may lie under its path and number, nor has a file of unknown birth, for a new
// filesystem gives the same inodes out again.
func Unproven(stored, now string) (why string, unproven bool) {
	a, b := strings.Split(stored, ":"), strings.Split(now, ":")
	switch {
	case a[0] == joined && b[0] == joined:
		if a[2] == proven && b[2] == proven {
			return "", false
		}
		return "one of its devices is a block device, or a file of which it is not known when it was made", true
	case a[0] == "blk" || b[0] == "blk":
		return "it lies on a block device, and another disk may have been put under the same path", true
	case a[0] != "file" && b[0] != "file":
		return "", false
	case len(a) > 2 && len(b) > 2 && a[2] == b[2] && strings.Contains(a[2], "."):
		return "", false
	}
	return "it lies in a file of which it is not known when it was made", true
}

// Of a backing that is joined from several: joined:FILES:PROVEN:ALL. FILES is a digest of what tells the files among them, in their
// order, PROVEN whether that proves each of them, and ALL a digest of their attachments.
const (
	joined = "joined"
	proven = "p"
)

// JoinedAttachment is that of the devices together: it changes when any of theirs does.
func JoinedAttachment(parts []string) string {
	files, how := make([]string, len(parts)), proven
	for i, p := range parts {
		f := strings.Split(p, ":")
		files[i] = f[0]
		if f[0] == "file" && len(f) > 2 {
			files[i] += ":" + f[2]
		}
		if _, no := Unproven(p, p); no {
			how = "u"
		}
	}
	digest := func(all []string) string {
		sum := sha256.Sum256([]byte(strings.Join(all, "\n")))
		return hex.EncodeToString(sum[:16])
	}
	return strings.Join([]string{joined, digest(files), how, digest(parts)}, ":")
}

// sameBacking reports whether the two attachments can be of one backing, and if not, why. The forms are those of
// filedev: "blk:MAJOR:MINOR:SEQ" and "file:DEV:INODE.BIRTH:SEQ".
//
// Numbers of devices and attachments change with a restart and prove nothing. A file is told by its inode and birth: the
// same path with another file is another backing, which a copy or a restored backup is too. Of block devices the path
// must do.
func sameBacking(stored, now string) (why string, same bool) {
	if stored == "" || now == "" {
		return "", true
	}
	a, b := strings.Split(stored, ":"), strings.Split(now, ":")
	if a[0] != b[0] {
		return "this is another kind of device under the same path", false
	}
	if a[0] == joined && a[1] != b[1] {
		return "one of the files is another than before, under the same path", false
	}
	if a[0] == "file" && len(a) > 2 && len(b) > 2 && !sameFile(a[2], b[2]) {
		return "this is another file under the same path", false
	}
	return "", true
}

// sameFile compares INODE.BIRTH; a birth that one side could not tell is not compared.
func sameFile(a, b string) bool {
	inodeA, birthA, knownA := strings.Cut(a, ".")
	inodeB, birthB, knownB := strings.Cut(b, ".")
	return inodeA == inodeB && (!knownA || !knownB || birthA == birthB)
}
