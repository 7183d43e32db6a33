// Package eventlog keeps the security log: JSON lines chained by a keyed hash,
// so that an edit, a cut or a reordering shows. It is append-only, fsynced,
// and refuses to hold secrets.
//
// A line is a JSON object with sorted keys: seq (from 1), time (RFC 3339, UTC),
// event, prev, the event's fields, and hash = hex HMAC-SHA256(log key, prev ‖
// LF ‖ the line's exact bytes without hash). The first prev is 64 zeros.
package eventlog

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"osaurus/engine/atomicfile"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/secret"
)

const (
	// RotateAt is the size in bytes at which a new file begins.
	RotateAt = 16 << 20
	// MaxLine bounds one line in bytes.
	MaxLine = 64 << 10
	// KeySize is the length of the log key in bytes.
	KeySize = 32
)

var zeroHash = strings.Repeat("0", 2*sha256.Size)

// Head is the last line known to be written. Kept apart from the file, it
// shows when lines were cut off the end.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// Options tunes Open.
type Options struct {
	Now      func() time.Time // nil means time.Now
	RotateAt int64            // 0 means RotateAt
}

// Log is safe for concurrent use.
type Log struct {
	path string
	key  secret.Bytes
	o    Options

	mu   sync.Mutex
	file *os.File
	size int64
	head Head
	torn int // bytes of a torn last line cut at Open
}

// Open continues the log at path. A last line without its line feed is what a
// crash left: it is cut, and Torn reports it. Everything else is left for
// Verify to judge.
func Open(path string, key secret.Bytes, o Options) (*Log, error) {
	if key.Len() != KeySize {
		return nil, fmt.Errorf("eventlog: the log key must have %d bytes", KeySize)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.RotateAt == 0 {
		o.RotateAt = RotateAt
	}
	l := &Log{path: path, key: key.Clone(), o: o, head: Head{Hash: zeroHash}}
	if err := l.recover(); err != nil {
		return nil, err
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// recover finds the head and cuts a torn last line.
func (l *Log) recover() error {
	files, err := Files(l.path)
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(files) {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		whole := bytes.LastIndexByte(raw, '\n') + 1
		if name == l.path && whole < len(raw) {
			l.torn = len(raw) - whole
			if err := os.Truncate(name, int64(whole)); err != nil {
				return err
			}
		}
		if whole == 0 {
			continue
		}
		last := raw[bytes.LastIndexByte(raw[:whole-1], '\n')+1 : whole-1]
		if json.Unmarshal(last, &l.head) != nil {
			return fmt.Errorf("eventlog: the last line of %s does not parse; run: osaurus log verify", filepath.Base(name))
		}
		return nil
	}
	return nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|noFollow, atomicfile.Mode)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("eventlog: %s is not a regular file", l.path), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Torn returns how many bytes of an unfinished line Open cut away.
func (l *Log) Torn() int { return l.torn }

// Head returns the last line written.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Append writes one event durably. Attribute values go through Redact; keys
// of the chain itself (seq, time, event, prev, hash) are refused.
func (l *Log) Append(event string, attrs ...slog.Attr) error {
	fields := map[string]any{}
	for _, a := range attrs {
		switch a.Key {
		case "seq", "time", "event", "prev", "hash", "":
			return fmt.Errorf("eventlog: field name %q is reserved", a.Key)
		}
		fields[a.Key] = value(a.Value)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return fs.ErrClosed
	}
	if l.size >= l.o.RotateAt {
		if err := l.rotateLocked(); err != nil {
			return err
		}
	}
	fields["seq"], fields["time"] = l.head.Seq+1, l.o.Now().UTC().Format(time.RFC3339Nano)
	fields["event"], fields["prev"] = event, l.head.Hash
	line, hash, err := seal(l.key, l.head.Hash, fields)
	if err != nil {
		return err
	}
	if _, err := l.file.Write(line); err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	if err := l.file.Sync(); err != nil {
		// A line that may be lost must not be followed by one of its number.
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(line))
	l.head = Head{l.head.Seq + 1, hash}
	return nil
}

// seal returns the whole line with its hash and line feed.
func seal(key secret.Bytes, prev string, fields map[string]any) ([]byte, string, error) {
	bare, err := canonjson.Marshal(fields)
	if err != nil {
		return nil, "", err
	}
	hash := chain(key, prev, bare)
	fields["hash"] = hash
	line, err := canonjson.Marshal(fields)
	if err == nil && len(line) > MaxLine {
		err = fmt.Errorf("eventlog: an event has at most %d bytes", MaxLine)
	}
	return append(line, '\n'), hash, err
}

func chain(key secret.Bytes, prev string, bare []byte) string {
	mac := hmac.New(sha256.New, key.Expose())
	_, _ = io.WriteString(mac, prev+"\n")
	mac.Write(bare)
	return hex.EncodeToString(mac.Sum(nil))
}

// rotateLocked renames the file after the last sequence number in it; the
// chain goes on in a new one.
func (l *Log) rotateLocked() error {
	if err := l.file.Close(); err != nil {
		return err
	}
	l.file = nil
	if err := os.Rename(l.path, fmt.Sprintf("%s.%012d", l.path, l.head.Seq)); err != nil {
		return errors.Join(err, l.open())
	}
	if err := l.open(); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(l.path))
}

// Close ends the log and destroys its key.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key.Destroy()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// Files returns the files of the log at path, oldest first.
func Files(path string) ([]string, error) {
	rotated, err := filepath.Glob(path + ".[0-9]*")
	if err != nil {
		return nil, err
	}
	slices.Sort(rotated)
	if _, err := os.Lstat(path); err == nil {
		rotated = append(rotated, path)
	}
	return rotated, nil
}

func value(v slog.Value) any {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindInt64:
		return v.Int64()
	case slog.KindUint64:
		return v.Uint64()
	case slog.KindBool:
		return v.Bool()
	default:
		return Redact(v.String())
	}
}
