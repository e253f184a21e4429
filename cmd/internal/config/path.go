package config

import (
	"os"
	"path/filepath"
	"strings"
)

// badPath says what is wrong with a path that must be absolute and written without detours.
func badPath(path string) (want string) {
	switch {
	case !filepath.IsAbs(path):
		return "an absolute path is wanted, one that begins with /"
	case filepath.Clean(path) != path:
		return filepath.Clean(path) + " is wanted, without detours or a slash at the end"
	}
	return ""
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// maxLinks bounds a chain of symbolic links, as the kernel does.
const maxLinks = 40

// resolve follows the symbolic links of a path as far as it exists: the last part may be absent (a file is made when
// it is), also at the end of a link. What cannot be followed stays as it is written.
func resolve(path string) string {
	for range maxLinks {
		if whole, err := filepath.EvalSymlinks(path); err == nil {
			return whole
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return path
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil {
			return path
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return path
}
