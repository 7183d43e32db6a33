package control

import (
	"net"
	"os"
)

// ownerOnly closes connections of other users, whatever the file modes say.
type ownerOnly struct{ net.Listener }

// Accept implements net.Listener.
func (o ownerOnly) Accept() (net.Conn, error) {
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if u, ok := c.(*net.UnixConn); ok && sameUser(u) {
			return c, nil
		}
		_ = c.Close()
	}
}

func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	uid, ok := uint32(0), false
	err = raw.Control(func(fd uintptr) { uid, ok = peerUser(int(fd)) })
	return err == nil && ok && (int64(uid) == int64(os.Geteuid()) || uid == 0)
}
