package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/yamux"
	"github.com/mdlayher/vsock"

	"osaurus/engine/sandbox/wire"
)

// Host opens streams to the host.
type Host interface {
	Dial(ctx context.Context) (net.Conn, error)
	Close() error
}

// dialer returns the host behind a transport (wire.Boot).
func dialer(transport string) (Host, error) {
	switch kind, where, _ := strings.Cut(transport, ":"); kind {
	case "unix":
		return unixHost(where), nil
	case "virtio":
		port, err := os.OpenFile(where, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		return multiplexed(port)
	case "vsock":
		cid, port, ok := strings.Cut(where, ":")
		c, errC := strconv.ParseUint(cid, 10, 32)
		p, errP := strconv.ParseUint(port, 10, 32)
		if ok && errC == nil && errP == nil {
			return vsockHost{uint32(c), uint32(p)}, nil
		}
	}
	return nil, wire.ErrBoot
}

type unixHost string

func (h unixHost) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", string(h))
}

func (unixHost) Close() error { return nil }

type vsockHost struct{ cid, port uint32 }

func (h vsockHost) Dial(context.Context) (net.Conn, error) { return vsock.Dial(h.cid, h.port, nil) }
func (vsockHost) Close() error                             { return nil }

// yamuxHost has every stream on one serial port.
type yamuxHost struct{ session *yamux.Session }

// multiplexed begins a session as its client.
func multiplexed(port io.ReadWriteCloser) (Host, error) {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	session, err := yamux.Client(port, c)
	if err != nil {
		return nil, errors.Join(err, port.Close())
	}
	return yamuxHost{session}, nil
}

func (h yamuxHost) Dial(context.Context) (net.Conn, error) { return h.session.Open() }
func (h yamuxHost) Close() error                           { return h.session.Close() }
