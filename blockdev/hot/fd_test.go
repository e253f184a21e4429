package hot

import "golang.org/x/sys/unix"

func writeFD(fd uintptr, b []byte) (int, error) { return unix.Write(int(fd), b) }
