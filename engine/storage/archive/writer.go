package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"osaurus/engine/internal/canonjson"
	"osaurus/engine/storage/disk"
)

// Options say where an export goes and in which form.
type Options struct {
	Disk       disk.Disk
	Dir        string // the folder that gets it
	Created    time.Time
	AppVersion string
	Tar        bool
	Recipients []age.Recipient // the tar is encrypted to them, if any
}

// Writer writes an export. It is not safe for concurrent use.
type Writer struct {
	o        Options
	final    string
	manifest Manifest
	last     string // the path added last
	file     *disk.File
	sealed   io.WriteCloser // age, between the tar and the file
	tar      *tar.Writer
}

// Final returns the path an export will have, and Partial the one it has
// until then.
func (o Options) Final() string {
	path := filepath.Join(o.Dir, Name(o.Created))
	switch {
	case len(o.Recipients) > 0:
		return path + extTar + extAge
	case o.Tar:
		return path + extTar
	}
	return path
}

// Partial is Final until the export is whole.
func (o Options) Partial() string { return o.Final() + partial }

const readme = `Osaurus plaintext backup

Generated: %s
Storage key version: 2

The files in here are NOT encrypted: whoever reads them reads the chats, the
memory and the records of the agents that were exported. Keep them as you
would keep a diary, and delete them when they have done their work.

  databases/   SQLite files; any SQLite program opens them
  blobs/       attachments, named by the SHA-256 of their content
  config/      settings and records
  manifest.json lists every file with its size and SHA-256

Keys are not part of an export: the identity comes back from its 24 words, and
peers have to be paired again.

To bring it back:  osaurus storage import PATH
`

// Create begins an export. There must be nothing of its name.
func Create(o Options) (*Writer, error) {
	o.Created = o.Created.UTC().Truncate(time.Second)
	w := &Writer{o: o, final: o.Final(), manifest: Manifest{V: manifestVersion, Created: o.Created, AppVersion: o.AppVersion, Items: []Item{}, Complete: true}}
	for _, path := range []string{w.final, o.Partial()} {
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%w: %s", ErrExists, path)
		}
	}
	if err := w.begin(); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

func (w *Writer) tarred() bool { return w.o.Tar || len(w.o.Recipients) > 0 }

// begin makes the folder or the tar, and the text for people in it.
func (w *Writer) begin() (err error) {
	if w.tarred() {
		err = w.beginTar()
	} else {
		err = w.o.Disk.MkdirAll(w.o.Partial())
	}
	if err != nil {
		return err
	}
	text := fmt.Sprintf(readme, w.o.Created.Format(time.RFC3339))
	_, err = w.put(readmeName, int64(len(text)), func(dst io.Writer) error {
		_, err := io.WriteString(dst, text)
		return err
	})
	return err
}

func (w *Writer) beginTar() (err error) {
	if w.file, err = w.o.Disk.Create(w.o.Partial()); err != nil {
		return err
	}
	var dst io.Writer = w.file
	if len(w.o.Recipients) > 0 {
		if w.sealed, err = age.Encrypt(w.file, w.o.Recipients...); err != nil {
			return err
		}
		dst = w.sealed
	}
	w.tar = tar.NewWriter(dst)
	return nil
}

// Add writes one file of exactly size bytes and lists it. Paths must ascend
// within a kind, and kinds be added as blobs, config, databases.
func (w *Writer) Add(it Item, size int64, fill func(io.Writer) error) error {
	if err := it.checkPath(); err != nil {
		return err
	}
	if it.Path <= w.last {
		return fmt.Errorf("archive: internal error: %s after %s", it.Path, w.last)
	}
	sum, err := w.put(it.Path, size, fill)
	if err != nil {
		return fmt.Errorf("%s: %w", it.Path, err)
	}
	it.Bytes, it.SHA256, w.last = size, sum, it.Path
	w.manifest.Items = append(w.manifest.Items, it)
	return nil
}

// Fail lists a file that could not be exported, and why.
func (w *Writer) Fail(it Item, why string) {
	it.Error = why
	w.manifest.Items = append(w.manifest.Items, it)
	w.manifest.Complete = false
}

// put writes one file and returns its SHA-256.
func (w *Writer) put(path string, size int64, fill func(io.Writer) error) (string, error) {
	sum := sha256.New()
	if w.tar != nil {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: Name(w.o.Created) + "/" + path, Size: size, Mode: 0o600, ModTime: w.o.Created, Format: tar.FormatPAX}
		if err := w.tar.WriteHeader(h); err != nil {
			return "", err
		}
		if err := fill(io.MultiWriter(w.tar, sum)); err != nil {
			return "", err
		}
		if err := w.tar.Flush(); err != nil { // tells a file that is too short
			return "", err
		}
		return hex.EncodeToString(sum.Sum(nil)), nil
	}
	name := filepath.Join(w.o.Partial(), filepath.FromSlash(path))
	if err := w.o.Disk.MkdirAll(filepath.Dir(name)); err != nil {
		return "", err
	}
	f, err := w.o.Disk.Create(name)
	if err != nil {
		return "", err
	}
	counted := &counter{dst: io.MultiWriter(f, sum)}
	err = errors.Join(fill(counted), f.Close())
	if err == nil && counted.n != size {
		err = io.ErrShortWrite
	}
	return hex.EncodeToString(sum.Sum(nil)), err
}

type counter struct {
	dst io.Writer
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.dst.Write(p)
	c.n += int64(n)
	return n, err
}

// File returns where a file that was added lies; "" in a tar.
func (w *Writer) File(it Item) string {
	if w.tarred() {
		return ""
	}
	return filepath.Join(w.o.Partial(), filepath.FromSlash(it.Path))
}

// Commit writes the manifest, makes everything durable and gives the export
// its name. After an error Abort must be called.
func (w *Writer) Commit() (path string, m Manifest, err error) {
	text, err := canonjson.Marshal(w.manifest)
	if err != nil {
		return "", Manifest{}, err
	}
	_, err = w.put(manifestName, int64(len(text)), func(dst io.Writer) error {
		_, err := dst.Write(text)
		return err
	})
	if err != nil {
		return "", Manifest{}, err
	}
	if w.tar != nil {
		err = w.tar.Close()
		if w.sealed != nil {
			err = errors.Join(err, w.sealed.Close())
		}
		err = errors.Join(err, w.file.Close())
		w.file = nil
	} else {
		err = w.syncFolders()
	}
	if err != nil {
		return "", Manifest{}, err
	}
	if _, err := os.Lstat(w.final); err == nil {
		return "", Manifest{}, fmt.Errorf("%w: %s", ErrExists, w.final)
	}
	if err := w.o.Disk.Rename(w.o.Partial(), w.final); err != nil {
		return "", Manifest{}, err
	}
	return w.final, w.manifest, w.o.Disk.SyncDir(w.o.Dir)
}

func (w *Writer) syncFolders() error {
	return filepath.WalkDir(w.o.Partial(), func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return w.o.Disk.SyncDir(path)
	})
}

// Abort removes what was written.
func (w *Writer) Abort() error {
	var err error
	if w.file != nil {
		err = w.file.Abandon()
		w.file = nil
	}
	if removeErr := w.o.Disk.RemoveAll(w.o.Partial()); removeErr != nil {
		return errors.Join(err, fmt.Errorf("%s could not be removed; it holds plaintext: %w", w.o.Partial(), removeErr))
	}
	return err
}
