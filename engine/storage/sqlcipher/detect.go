package sqlcipher

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"

	"osaurus/engine/storage/disk"
)

// Format is what lies under a database's name (storage.md section 12).
type Format uint8

// The formats. Encrypted only means "no magic and of a possible size": a key
// has to prove it.
const (
	invalidFormat Format = iota
	Missing
	Empty
	Plaintext
	Encrypted
	Foreign // a size or a header that no database of ours has
)

var formatNames = [...]string{"unknown", "missing", "empty", "plaintext", "encrypted", "foreign"}

// String returns the word for people and JSON.
func (f Format) String() string {
	if int(f) < len(formatNames) {
		return formatNames[f]
	}
	return formatNames[invalidFormat]
}

const (
	magic          = "SQLite format 3\x00"
	pageSizeOffset = 16
	headerSize     = 100 // of SQLite's first page
)

// Detect looks at the first bytes of path. It must not be called while this
// process has the file open: closing it would drop SQLite's locks. Anything
// but a regular file of this user is disk.ErrUnsafe.
func Detect(path string) (Format, int64, error) {
	f, info, err := disk.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Missing, 0, nil
	} else if err != nil {
		return invalidFormat, 0, err
	}
	defer func() { _ = f.Close() }() // read only
	head := make([]byte, headerSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return invalidFormat, 0, err
	}
	return formatOf(head[:n], info.Size()), info.Size(), nil
}

func formatOf(head []byte, size int64) Format {
	switch {
	case size == 0:
		return Empty
	case len(head) >= len(magic) && string(head[:len(magic)]) == magic:
		if page := pageSize(head); page == 0 || size%page != 0 {
			return Foreign
		}
		return Plaintext
	case size%PageSize != 0:
		return Foreign
	}
	return Encrypted
}

// pageSize reads the page size of a plaintext header; 0 if it has none.
func pageSize(head []byte) int64 {
	if len(head) < headerSize {
		return 0
	}
	n := int64(binary.BigEndian.Uint16(head[pageSizeOffset:]))
	if n == 1 {
		n = 65536
	}
	if n < 512 || n&(n-1) != 0 {
		return 0
	}
	return n
}

// Sidecars returns the names that belong to a database and move with it.
func Sidecars(path string) []string {
	return []string{path + "-wal", path + "-shm", path + "-journal"}
}
