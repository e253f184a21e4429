package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// content is what a file is to hold.
type content struct {
	name string
	data []byte
	mode os.FileMode
}

// create writes new files, all or none: what was written is taken back when a later one cannot be.
func (f Folder) create(files []content) error {
	for i, c := range files {
		err := f.put(c, os.Link)
		if err == nil {
			continue
		}
		for _, done := range files[:i] {
			err = errors.Join(err, os.Remove(f.file(done.name)))
		}
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s %w: `ha-admin pki rotate certs` makes a new one in its place", f.file(c.name), ErrExists)
		}
		return err
	}
	return nil
}

// replace puts files in the place of others, each whole.
func (f Folder) replace(files ...content) error {
	for _, c := range files {
		if err := f.put(c, os.Rename); err != nil {
			return err
		}
	}
	return nil
}

// put writes a file under a name of its own, flushes it, and gives it its name by link, which fails when the name is
// taken, or by rename.
func (f Folder) put(c content, place func(from, to string) error) error {
	tmp, err := os.CreateTemp(f.Path, "."+c.name+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", f.file(c.name), err)
	}
	_, err = tmp.Write(c.data)
	err = errors.Join(err, tmp.Chmod(c.mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = place(tmp.Name(), f.file(c.name))
	}
	if rm := os.Remove(tmp.Name()); err == nil && rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = rm
	}
	if err == nil {
		err = syncFolder(f.Path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.file(c.name), err)
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// maxFile bounds what is read of a file: a certificate has a kilobyte.
const maxFile = 64 << 10

// read gives a file's content. secret: nobody but its owner may be able to read it.
func read(path string, secret bool) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file (%v)", path, info.Mode())
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are wanted", path, info.Size(), maxFile)
	case secret && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and replace it if somebody may have read it", path, info.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(file, maxFile))
}

// Certificates reads all certificates of a file.
func Certificates(path string) (all []*x509.Certificate, err error) {
	b, err := read(path, false)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != pemCert {
			return nil, fmt.Errorf("%s holds a %q: certificates only are wanted", path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s, certificate %d: %w", path, len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return all, nil
}

// PrivateKey reads the key of a file that only its owner can read.
func PrivateKey(path string) (crypto.Signer, error) {
	b, err := read(path, true)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemKey {
		return nil, fmt.Errorf("%s holds no %q in PEM form", path, pemKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key that cannot sign", path)
	}
	return signer, nil
}

// Users are the names of those whose certificates lie in the folder.
func (f Folder) Users() (names []string, err error) { return f.list(KindUser) }

func (f Folder) list(kind Kind) (found []string, err error) {
	prefix := string(kind) + "-"
	paths, err := filepath.Glob(filepath.Join(globQuote(f.Path), prefix+"*.crt"))
	for _, p := range paths {
		name := filepath.Base(p)
		found = append(found, name[len(prefix):len(name)-len(".crt")])
	}
	return found, err
}

// globQuote keeps a folder's own name from being taken for a pattern.
func globQuote(path string) string {
	var b []rune
	for _, r := range path {
		if r == '*' || r == '?' || r == '[' || r == '\\' {
			b = append(b, '\\')
		}
		b = append(b, r)
	}
	return string(b)
}
