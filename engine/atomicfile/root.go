package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// WriteIn is Write for a name below root, which no link leads out of.
func WriteIn(root *os.Root, name string, data []byte) (err error) {
	switch info, statErr := root.Lstat(name); {
	case statErr == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s", ErrNotRegular, name)
	case statErr != nil && !errors.Is(statErr, fs.ErrNotExist):
		return statErr
	}
	temp := path.Join(path.Dir(name), "."+path.Base(name)+".tmp-"+rand.Text())
	tmp, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, Mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(root.Remove(temp)))
		}
	}()
	if err := fill(tmp, data); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
