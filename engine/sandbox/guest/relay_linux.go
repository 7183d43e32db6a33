package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"osaurus/engine/sandbox/wire"
)

// maxStreams is how many streams one listener relays at once. The host has
// its own cap.
const maxStreams = 128

// serve relays every connection of l to a stream of the host's that begins
// with the line preface returns. It returns when l is closed and all streams
// have ended.
func serve(ctx context.Context, l net.Listener, host Host, preface func(net.Conn) (string, error)) {
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, maxStreams)
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			continue // such as too many files; the caller may try again
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close() // over the cap
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = c.Close() }() // both ends have been told
			relay(ctx, c, host, preface)
		})
	}
}

func relay(ctx context.Context, c net.Conn, host Host, preface func(net.Conn) (string, error)) {
	line, err := preface(c)
	if err != nil {
		return
	}
	up, err := host.Dial(ctx)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = c.Close(), up.Close() })
	defer stop()
	if _, err := io.WriteString(up, line); err != nil {
		return
	}
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(up, c) // whichever end broke, the other is told
		closeWrite(up)
	})
	group.Go(func() {
		_, _ = io.Copy(c, up)
		// The host has said all it will: what the process still sends is lost.
		_ = c.Close()
	})
	group.Wait()
}

// closeWrite tells the other end that no more comes. A multiplexed stream
// stays readable after Close.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it is gone then
		return
	}
	_ = c.Close()
}

var errPeer = errors.New("guest: who connected is unknown")

// bridgePreface asks the kernel who connected (unix(7), SO_PEERCRED).
func bridgePreface(sandbox string, c net.Conn) (string, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return "", errPeer
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "", err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return "", err
	}
	if credErr != nil || cred.Pid < 0 {
		return "", errPeer
	}
	return wire.Preface{Kind: wire.Bridge, Sandbox: sandbox, UID: cred.Uid, PID: cred.Pid}.String(), nil
}
