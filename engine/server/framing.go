package server

import (
	"bytes"
	"strconv"
	"sync/atomic"
)

// framing follows the requests on one connection, only to tell which of them
// gave its length twice: net/http takes the chunked one (RFC 9112 section 6.3)
// and hides that there was another. It is fed the bytes as they are read;
// refuses may be asked meanwhile.
//
// What it cannot follow counts as such a request too. Most of that net/http
// refuses by itself.
type framing struct {
	odd atomic.Int64 // the first such request, counted from 1

	state framingState
	heads int64 // complete ones
	line  []byte
	head  headLines
	left  int64 // bytes of the body or chunk
}

// headLines is what the lines of one head said so far.
type headLines struct {
	begun   bool
	old     bool // HTTP/1.0, where nothing is chunked
	counts  bool // the last line was one of the two lengths
	chunked bool
	sized   bool
	size    int64 // -1 is none
}

type framingState uint8

const (
	inHead framingState = iota
	inBody
	inChunkSize
	inChunk
	inTrailer
	lost
)

// maxFramingLine is what is kept of a line: more than the names and numbers
// that count.
const maxFramingLine = 128

// feed takes the next bytes of the connection.
func (f *framing) feed(p []byte) {
	for len(p) > 0 && f.state != lost {
		if f.state == inBody || f.state == inChunk {
			n := min(f.left, int64(len(p)))
			p, f.left = p[n:], f.left-n
			if f.left > 0 {
				return
			}
			f.state = map[framingState]framingState{inBody: inHead, inChunk: inChunkSize}[f.state]
			continue
		}
		part, rest, whole := bytes.Cut(p, []byte("\n"))
		f.line = append(f.line, part[:min(len(part), maxFramingLine-len(f.line))]...)
		if !whole {
			return
		}
		p = rest
		f.take(bytes.TrimSuffix(f.line, []byte("\r")))
		f.line = f.line[:0]
	}
}

// take reads one line.
func (f *framing) take(line []byte) {
	switch f.state {
	case inHead:
		f.takeHead(line)
	case inChunkSize:
		f.takeChunk(line)
	case inTrailer:
		if len(line) == 0 {
			f.state = inHead
		}
	case inBody, inChunk, lost: // they have no lines
	}
}

func (f *framing) takeHead(line []byte) {
	h := &f.head
	switch {
	case !h.begun:
		// An empty line may stand before it (section 2.2).
		h.begun, h.old = len(line) > 0, bytes.HasSuffix(line, []byte(" HTTP/1.0"))
	case len(line) == 0:
		f.heads++
		f.endHead(*h)
		*h = headLines{}
	case line[0] == ' ' || line[0] == '\t': // goes on with the line before
		h.sized, h.chunked = h.sized || h.counts, h.chunked || h.counts
	default:
		h.field(line)
	}
}

func (h *headLines) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseUint(string(bytes.Trim(value, " \t")), 10, 63)
		if h.size = int64(n); err != nil { //nolint:gosec // 63 bits
			h.size = -1
		}
		h.sized, h.counts = true, true
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		h.chunked, h.counts = true, true
	default:
		h.counts = false
	}
}

func (f *framing) endHead(h headLines) {
	switch {
	case h.chunked && (h.sized || h.old) || h.size < 0:
		f.lose(f.heads)
	case h.chunked:
		f.state = inChunkSize
	case h.size > 0:
		f.state, f.left = inBody, h.size
	}
}

// takeChunk reads the line before a chunk (section 7.1).
func (f *framing) takeChunk(line []byte) {
	if len(line) == 0 {
		return // the end of the chunk before
	}
	size, _, _ := bytes.Cut(line, []byte(";"))
	n, err := strconv.ParseUint(string(bytes.TrimRight(size, " \t")), 16, 63)
	switch {
	case err != nil:
		f.lose(f.heads + 1) // this one the handler has already
	case n == 0:
		f.state = inTrailer
	default:
		f.state, f.left = inChunk, int64(n) //nolint:gosec // 63 bits
	}
}

func (f *framing) lose(at int64) {
	f.state = lost
	f.odd.Store(at)
}

// refuses reports whether the n-th request of the connection gave its length
// twice, or came after one that did.
func (f *framing) refuses(n int64) bool {
	odd := f.odd.Load()
	return odd > 0 && n >= odd
}
