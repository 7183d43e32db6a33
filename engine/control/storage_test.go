package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"osaurus/engine/storage"
	"osaurus/engine/storage/sqlcipher"
)

// TestDiskErrors: an error of the disk is told as one, and not as the
// network's, though the system has one type for both.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	on := func(err error) error { return &fs.PathError{Op: "write", Path: "x", Err: err} }
	for _, c := range []struct {
		err  error
		code string
		exit int
		text string
	}{
		{on(syscall.ENOSPC), "disk_full", exitFailed, "the disk is full"},
		{storage.ErrNoSpace, "disk_full", exitFailed, "the disk is full"},
		{fmt.Errorf("memory: %w (code 13)", sqlcipher.ErrFull), "disk_full", exitFailed, "the disk is full"},
		{on(syscall.EROFS), "disk_read_only", exitFailed, "the disk is read-only"},
		{on(syscall.EIO), "disk_failed", exitFailed, "the disk reports an error"},
		{sqlcipher.ErrIO, "disk_failed", exitFailed, "the disk reports an error"},
		{on(syscall.EACCES), "failed", exitFailed, "permission denied"},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "unreachable", exitUnreachable, "refused"},
	} {
		e := describe(c.err)
		if e.Code != c.code || e.Exit != c.exit || strings.Count(e.Message, c.text) != 1 {
			t.Errorf("%v: %+v", c.err, e)
		}
	}
}

// TestInterrupted: a request that its caller gave up is context.Canceled,
// whatever the cause is called.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(l.Addr().String())
	defer c.Close()
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"progress\":{\"label\":\"a\"}}\n"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 4096)); err != nil {
				return
			}
			if answer == "" {
				cancel(errors.New("a signal"))
			}
			_, _ = conn.Write([]byte(answer))
			_, _ = conn.Read(make([]byte, 1)) // until the client is gone
		}()
		_, err := c.OperateStorage(ctx, StorageOrder{What: "verify"}, func(storage.Progress) { cancel(errors.New("a signal")) })
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "signal") {
			t.Errorf("%v", err)
		}
		c.Close()
		<-closed
	}
}
