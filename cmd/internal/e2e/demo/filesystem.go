package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tree is a folder of real files.
type tree struct {
	dir   string
	files int
	bytes int64
}

// copyTree takes files of src in the order of their names until limit bytes have come together.
func copyTree(src, dst string, limit int64) (t tree, err error) {
	t.dir = dst
	err = filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if t.bytes >= limit {
			return fs.SkipAll
		}
		to := filepath.Join(dst, strings.TrimPrefix(path, src))
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case d.Type().IsRegular():
			n, err := copyFile(path, to)
			t.files, t.bytes = t.files+1, t.bytes+n
			return err
		}
		return nil
	})
	if err == nil && t.files == 0 {
		err = fmt.Errorf("%s has no files: name another folder with -tree", src)
	}
	return t, err
}

func copyFile(from, to string) (int64, error) {
	b, err := os.ReadFile(from)
	if err != nil {
		return 0, err
	}
	return int64(len(b)), os.WriteFile(to, b, 0o644)
}

// makeImage makes an ext4 file system that holds the tree.
func makeImage(ctx context.Context, t tree, image string, mib int64) error {
	return tool(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", t.dir, image, fmt.Sprintf("%dM", mib))
}

// checkImage has the file system checked, takes its files out and compares them with the tree.
func checkImage(ctx context.Context, t tree, image, out string) error {
	if err := tool(ctx, "e2fsck", "-f", "-n", image); err != nil {
		return fmt.Errorf("the file system is damaged: %w", err)
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := tool(ctx, "debugfs", "-R", fmt.Sprintf("rdump / %q", out), image); err != nil {
		return err
	}
	return errors.Join(compareTrees(t.dir, out), compareNames(out, t.dir))
}

// compareTrees finds what of a is not the same in b.
func compareTrees(a, b string) error {
	return filepath.WalkDir(a, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		other := filepath.Join(b, strings.TrimPrefix(path, a))
		info, err := os.Lstat(other)
		if err != nil {
			return fmt.Errorf("lost: %w", err)
		}
		if info.Mode().Type() != d.Type() {
			return fmt.Errorf("%s is a %v, it was a %v", other, info.Mode(), d.Type())
		}
		if d.IsDir() {
			return nil
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if got, err := os.ReadFile(other); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s has another content than before (%d bytes, there were %d; %v)", other, len(got), len(want), err)
		}
		return nil
	})
}

// compareNames finds what is in b and not in a, but for the folder that every ext4 has.
func compareNames(b, a string) error {
	return filepath.WalkDir(b, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "lost+found" {
			return fs.SkipDir
		}
		if err == nil {
			_, err = os.Lstat(filepath.Join(a, strings.TrimPrefix(path, b)))
		}
		return err
	})
}

func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
