package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"osaurus/engine/internal/canonjson"
)

// Bounds of the control stream.
const (
	MaxLine  = 1 << 20   // bytes of one JSON line
	MaxChunk = 256 << 10 // bytes of data in one line, before base64
	MaxArgs  = 256       // arguments or variables of one exec
)

// User ids that agents have (decisions D16).
const (
	MinUID = 2000
	MaxUID = 59999
)

// Op is an operation of the control stream.
type Op string

// The operations (section 6).
const (
	UserAdd  Op = "user-add"
	UserDel  Op = "user-del"
	TokenPut Op = "token-put"
	TokenDel Op = "token-del"
	Exec     Op = "exec"
	Kill     Op = "kill"
	Put      Op = "put"
	Get      Op = "get"
	Sync     Op = "sync"
	Shutdown Op = "shutdown"
)

// Request is one line from the host. Only the fields of its Op are set.
type Request struct {
	ID uint64 `json:"id"` // from 1, each once
	Op Op     `json:"op"`

	User  string `json:"user,omitempty"` // "" is root, for exec, put and get
	UID   uint32 `json:"uid,omitempty"`
	Token []byte `json:"token,omitempty"` // base64 in JSON

	Argv   []string `json:"argv,omitempty"`
	Env    []string `json:"env,omitempty"` // NAME=value
	Dir    string   `json:"dir,omitempty"`
	Idle   int64    `json:"idle_ms,omitempty"` // SIGTERM after this long without output; 0 never
	Stdin  []byte   `json:"stdin,omitempty"`
	Target uint64   `json:"target,omitempty"` // kill: the id of an exec
	Signal int      `json:"signal,omitempty"`

	Path string `json:"path,omitempty"` // put, get
	Mode uint32 `json:"mode,omitempty"` // put: permission bits
	Data []byte `json:"data,omitempty"` // put: the next piece
	More bool   `json:"more,omitempty"` // put: another piece of the same id follows
}

// Reply is one line from the guest. An exec and a get answer with many: data
// first, and one line without More at the end.
type Reply struct {
	ID    uint64 `json:"id"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`

	Stream   int    `json:"stream,omitempty"` // 1 or 2 for output of exec
	Data     []byte `json:"data,omitempty"`
	More     bool   `json:"more,omitempty"`
	Exit     int    `json:"exit,omitempty"`      // exec: exit code, 128+n for signal n
	KilledBy string `json:"killed_by,omitempty"` // exec: "idle" or "user"
	Mode     uint32 `json:"mode,omitempty"`      // get
}

// ErrControl says that a control line is malformed.
var ErrControl = errors.New("wire: malformed control line")

var fields = map[Op]func(Request) bool{
	UserAdd:  func(r Request) bool { return ValidUser(r.User) && validUID(r.UID) },
	UserDel:  func(r Request) bool { return ValidUser(r.User) },
	TokenPut: func(r Request) bool { return ValidUser(r.User) && len(r.Token) > 0 && len(r.Token) <= 256 },
	TokenDel: func(r Request) bool { return ValidUser(r.User) },
	Exec: func(r Request) bool {
		return userOrRoot(r.User) && len(r.Argv) > 0 && len(r.Argv) <= MaxArgs && len(r.Env) <= MaxArgs && plainAll(r.Argv) && validEnv(r.Env) && plain(r.Dir) && r.Idle >= 0
	},
	Kill: func(r Request) bool { return r.Target > 0 && r.Signal > 0 && r.Signal < 32 },
	Put: func(r Request) bool {
		return userOrRoot(r.User) && absolute(r.Path) && r.Mode <= 0o777 && len(r.Data) <= MaxChunk
	},
	Get:      func(r Request) bool { return userOrRoot(r.User) && absolute(r.Path) },
	Sync:     func(Request) bool { return true },
	Shutdown: func(Request) bool { return true },
}

// ParseRequest reads a line, without its line feed.
func ParseRequest(line []byte) (Request, error) {
	var r Request
	if len(line) > MaxLine || canonjson.Check(line) != nil {
		return Request{}, ErrControl
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if dec.Decode(&r) != nil || r.ID == 0 {
		return Request{}, ErrControl
	}
	if check, known := fields[r.Op]; !known || !check(r) {
		return Request{ID: r.ID}, fmt.Errorf("%w: the operation, or a field of it", ErrControl)
	}
	return r, nil
}

// ParseReply reads a line, without its line feed.
func ParseReply(line []byte) (Reply, error) {
	var r Reply
	if len(line) > MaxLine || canonjson.Unmarshal(line, &r) != nil || r.ID == 0 || r.Stream < 0 || r.Stream > 2 || len(r.Data) > MaxChunk {
		return Reply{}, ErrControl
	}
	return r, nil
}

// ReadLine returns the next line of at most MaxLine bytes. The slice is valid
// until the next call.
func ReadLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, ErrControl
	}
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

// NewLineReader buffers c for ReadLine.
func NewLineReader(c interface{ Read([]byte) (int, error) }) *bufio.Reader {
	return bufio.NewReaderSize(c, MaxLine+1)
}

// ValidUser reports whether name can be an agent's user: "agent-" and lower
// case letters, digits and dashes.
func ValidUser(name string) bool {
	rest, ok := strings.CutPrefix(name, "agent-")
	return ok && rest != "" && len(name) <= 64 && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func userOrRoot(name string) bool { return name == "" || ValidUser(name) }
func validUID(uid uint32) bool    { return uid >= MinUID && uid <= MaxUID }
func plain(s string) bool         { return strings.IndexByte(s, 0) < 0 }

func plainAll(list []string) bool {
	for _, s := range list {
		if !plain(s) {
			return false
		}
	}
	return true
}

func validEnv(env []string) bool {
	for _, e := range env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || !plain(e) {
			return false
		}
	}
	return true
}

// absolute accepts clean absolute paths: one way to name a file.
func absolute(p string) bool {
	if !strings.HasPrefix(p, "/") || len(p) > 4096 || !plain(p) {
		return false
	}
	for _, part := range strings.Split(p[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}
