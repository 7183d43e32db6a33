package sealed

import (
	"bytes"
	"io"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

// WriteFile seals what src yields into path, atomically. It returns how many
// plaintext bytes there were.
func WriteFile(d disk.Disk, path string, key dek.Key, label Label, src io.Reader) (int64, error) {
	var n int64
	err := d.Replace(path, func(dst io.Writer) error {
		w, err := NewWriter(dst, key, label, nil)
		if err != nil {
			return err
		}
		if n, err = w.ReadFrom(src); err != nil {
			return err
		}
		return w.Close()
	})
	return n, err
}

// ReadFile returns the content of path if it is at most limit bytes. The
// error of a missing file is fs.ErrNotExist, of a link or a folder
// disk.ErrUnsafe.
func ReadFile(path string, keys Keys, label Label, limit int64) ([]byte, error) {
	f, info, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	if info.Size() > sealedSize(limit) {
		return nil, ErrTooLarge
	}
	r, err := NewReader(f, keys, label)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(int(info.Size()))
	if _, err := r.WriteTo(&out); err != nil {
		return nil, err
	}
	if int64(out.Len()) > limit {
		return nil, ErrTooLarge
	}
	return out.Bytes(), nil
}

// CopyFile writes the content of src to dst and reports the format and key it
// was sealed with. What dst holds after an error is a part and must go.
func CopyFile(dst io.Writer, src string, keys Keys, label Label) (Format, dek.ID, error) {
	f, _, err := disk.Open(src)
	if err != nil {
		return NotSealed, dek.ID{}, err
	}
	defer func() { _ = f.Close() }() // read only
	r, err := NewReader(f, keys, label)
	if err != nil {
		return NotSealed, dek.ID{}, err
	}
	_, err = r.WriteTo(dst)
	return r.Format(), r.Key(), err
}
