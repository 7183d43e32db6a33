package wire

import (
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Bounds of the first line of a stream (decisions D16).
const (
	MaxPreface     = 128 // bytes, line feed included
	PrefaceTimeout = 2 * time.Second
)

// The first word of a stream says what follows.
const (
	bridgeWord  = "OSG1"
	proxyWord   = "OSP1"
	controlWord = "OSC1"
)

// Kind is what a stream carries.
type Kind uint8

// The kinds.
const (
	invalidKind Kind = iota
	Bridge           // HTTP of one process in the guest
	Proxy            // HTTP proxy requests
	Control          // the control stream, opened once by osaurus-guest
)

// Preface is a parsed first line.
type Preface struct {
	Kind    Kind
	Sandbox string // Bridge and Proxy
	UID     uint32 // Bridge: who connected, as the guest's kernel says
	PID     int32  // Bridge
	Nonce   string // Control
}

// ErrPreface says that a first line is malformed.
var ErrPreface = errors.New("wire: malformed preface")

// String writes the line with its line feed.
func (p Preface) String() string {
	switch p.Kind {
	case Bridge:
		return bridgeWord + " " + p.Sandbox + " " + strconv.FormatUint(uint64(p.UID), 10) + " " + strconv.FormatInt(int64(p.PID), 10) + "\n"
	case Proxy:
		return proxyWord + " " + p.Sandbox + "\n"
	case Control:
		return controlWord + " " + p.Nonce + "\n"
	}
	panic("wire: internal error: a preface without a kind")
}

// ParsePreface reads a line, without its line feed. There is one way to write
// each: single blanks, numbers without sign or leading zero.
func ParsePreface(line string) (Preface, error) {
	if len(line) >= MaxPreface {
		return Preface{}, ErrPreface
	}
	p, ok := Preface{}, false
	switch f := strings.Split(line, " "); {
	case len(f) == 4 && f[0] == bridgeWord:
		uid, errU := strconv.ParseUint(f[2], 10, 32)
		pid, errP := strconv.ParseInt(f[3], 10, 32)
		p, ok = Preface{Kind: Bridge, Sandbox: f[1], UID: uint32(uid), PID: int32(pid)}, errU == nil && errP == nil && pid >= 0 && ValidSandbox(f[1])
	case len(f) == 2 && f[0] == proxyWord:
		p, ok = Preface{Kind: Proxy, Sandbox: f[1]}, ValidSandbox(f[1])
	case len(f) == 2 && f[0] == controlWord:
		p, ok = Preface{Kind: Control, Nonce: f[1]}, validNonce(f[1])
	}
	if !ok || p.String() != line+"\n" {
		return Preface{}, ErrPreface
	}
	return p, nil
}

// ReadPreface reads the first line of c within PrefaceTimeout and nothing
// beyond it.
func ReadPreface(c net.Conn) (Preface, error) {
	if err := c.SetReadDeadline(time.Now().Add(PrefaceTimeout)); err != nil {
		return Preface{}, err
	}
	line := make([]byte, 0, MaxPreface)
	for len(line) < MaxPreface {
		var one [1]byte // what follows belongs to the next protocol
		if _, err := io.ReadFull(c, one[:]); err != nil {
			return Preface{}, err
		}
		if one[0] == '\n' {
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return Preface{}, err
			}
			return ParsePreface(string(line))
		}
		line = append(line, one[0])
	}
	return Preface{}, ErrPreface
}
