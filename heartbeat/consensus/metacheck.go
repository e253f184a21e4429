package consensus

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"
)

// checkMeta reads all of raft-wal's wal-meta.db once, before raft-wal does. raft-wal cannot cope with a damaged one:
// an empty file becomes a new database, and damaged pages are a panic that leaves the file open and locked, so that the
// next try waits for ever.
func checkMeta(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < 4*int64(os.Getpagesize()) { // what the empty database has
		return fmt.Errorf("%s has %d bytes, too few for a database", path, info.Size())
	}
	var file *os.File
	defer func() {
		if file != nil {
			_ = file.Close() // after a panic; else it is closed already
		}
	}()
	open := func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	err = guarded(func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, OpenFile: open})
		if err != nil {
			return err
		}
		return errors.Join(db.View(readAll), db.Close())
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// readAll visits every page that holds data.
func readAll(tx *bbolt.Tx) error {
	for _, name := range []string{metadb.MetaBucket, metadb.StableBucket} {
		b := tx.Bucket([]byte(name))
		if b == nil {
			return fmt.Errorf("bucket %q is missing", name)
		}
		if err := b.ForEach(func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}
