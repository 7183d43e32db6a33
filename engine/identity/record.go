package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// fileVersion is the version of the JSON files in <home>/identity.
const fileVersion = 1

// record is identity/account.json: what must show while the keystore is
// locked. It is a copy; the keystore decides.
type record struct {
	Version      int             `json:"version"`
	Address      address.Address `json:"address"`
	Created      int64           `json:"created"` // Unix seconds
	Acknowledged bool            `json:"acknowledged"`
}

// record returns the zero record when there is none.
func (a *Account) record() (record, error) {
	var r record
	err := readJSON(a.recordPath(), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err == nil && (r.Version != fileVersion || r.Address.IsZero()) {
		err = errCorrupt(a.recordPath())
	}
	if err != nil {
		return record{}, fmt.Errorf("%w; move it away and it is rebuilt from the keystore at the next unlock", err)
	}
	return r, nil
}

func (a *Account) save(r record) error {
	r.Version = fileVersion
	return writeJSON(a.files, a.recordPath(), r)
}

func (a *Account) recordPath() string { return filepath.Join(a.c.Dir, "account.json") }

// readJSON returns fs.ErrNotExist for a missing file and fault.StateCorrupt
// for one that does not parse.
func readJSON(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if canonjson.Unmarshal(raw, v) != nil {
		return errCorrupt(path)
	}
	return nil
}

func errCorrupt(path string) error {
	return fault.New(fault.StateCorrupt, fmt.Errorf("%s does not parse", path))
}

func writeJSON(f files, path string, v any) error {
	raw, err := canonjson.Marshal(v)
	if err != nil {
		return err
	}
	var lines bytes.Buffer
	if err := json.Indent(&lines, raw, "", "  "); err != nil {
		return err
	}
	lines.WriteByte('\n')
	return f.Write(path, lines.Bytes())
}

// files is where the JSON files are written; tests stop it between two steps.
type files interface {
	Write(path string, data []byte) error
	Remove(path string) error
}

type disk struct{}

func (disk) Write(path string, data []byte) error { return atomicfile.Write(path, data) }
func (disk) Remove(path string) error             { return atomicfile.Remove(path) }
