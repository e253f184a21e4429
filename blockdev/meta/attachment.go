package meta

import "strings"

// SameBacking is for what else is bound to a backing beside the superblock: whether two attachments can be of one, and
// if not, why.
func SameBacking(stored, now string) (why string, same bool) { return sameBacking(stored, now) }

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
