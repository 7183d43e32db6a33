package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// files are contents by slash-separated name.
type files map[string][]byte

func (f files) names() []string { return slices.Sorted(maps.Keys(f)) }

// under returns the files below a folder.
func (f files) under(dir string) files {
	out := files{}
	for name, body := range f {
		out[dir+"/"+name] = body
	}
	return out
}

// sums are the lines of sha256sum(1), sorted by name.
func (f files) sums() string {
	var b strings.Builder
	for _, name := range f.names() {
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(f[name]), name)
	}
	return b.String()
}

// mode is a file's mode in archives: programs can be run.
func mode(name string) int64 {
	if strings.Contains("/"+name, "/bin/") || strings.HasSuffix(name, "/"+runsc) {
		return 0o755
	}
	return 0o644
}

// archive packs files as tar.gz: sorted, owned by root, all of one time.
func (f files) archive(at time.Time) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(z)
	for _, name := range f.names() {
		h := tar.Header{Name: name, Mode: mode(name), Size: int64(len(f[name])), ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
		if err := t.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := t.Write(f[name]); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// compressed is a file as gzip -9n makes it.
func compressed(body []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(body)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		panic("release: a buffer cannot refuse: " + err.Error())
	}
	return b.Bytes()
}
