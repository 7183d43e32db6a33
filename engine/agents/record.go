package agents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// recordVersion is the version of agents/<UUID>.json.
const recordVersion = 1

// uuidLength is the length of a UUID in its one accepted form, with dashes.
const uuidLength = 36

type fields map[string]json.RawMessage

// record is the file: an agent and the version of its form.
type record struct {
	Version int `json:"version"`
	Agent
}

// ownKeys are the names a record writes itself.
var ownKeys = func() []string {
	keys := []string{"version"}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Agent]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			keys = append(keys, name)
		}
	}
	return keys
}()

// parse reads the file of one agent. Fields it does not know are carried
// along, so that a file another version wrote loses nothing.
func parse(raw []byte, id string) (Agent, error) {
	if len(raw) > maxFile {
		return Agent{}, corrupt(id, "is too large")
	}
	var r record
	if canonjson.Unmarshal(raw, &r) != nil || json.Unmarshal(raw, &r.extra) != nil {
		return Agent{}, corrupt(id, "does not parse")
	}
	if r.Version != recordVersion {
		return Agent{}, corrupt(id, "was written by another version")
	}
	a := r.Agent
	a.ID = strings.ToUpper(a.ID)
	if len(a.ID) != uuidLength || uuid.Validate(a.ID) != nil || a.ID != id {
		return Agent{}, corrupt(id, "is not the record of that agent")
	}
	draft, err := a.Draft().clean()
	if err != nil || a.Path != nil && (len(a.Path.Scope) > maxScope || !utf8.ValidString(a.Path.Scope)) {
		return Agent{}, corrupt(id, "holds a value out of bounds")
	}
	draft.apply(&a)
	if a.extra, err = foreign(a.extra); err != nil {
		return Agent{}, corrupt(id, "does not parse")
	}
	if len(a.Retired) == 0 {
		a.Retired = nil
	}
	return a, nil
}

// foreign keeps the fields that are not a record's own, in one form. The
// decoder takes own names in any case, so another spelling is refused: it
// could set a value that the proper field does not show.
func foreign(all fields) (fields, error) {
	var kept fields
	for key, value := range all {
		if slices.Contains(ownKeys, key) {
			continue
		}
		one, err := canonjson.Marshal(value)
		if err != nil || slices.ContainsFunc(ownKeys, func(own string) bool { return strings.EqualFold(own, key) }) {
			return nil, errors.New("misspelt field")
		}
		if kept == nil {
			kept = fields{}
		}
		kept[key] = one
	}
	return kept, nil
}

func corrupt(id, why string) error {
	return fault.New(fault.StateCorrupt, fmt.Errorf("agents/%s.json %s", id, why))
}

// encode writes the file with sorted keys. What parse would refuse is not
// written.
func (a Agent) encode() ([]byte, error) {
	own, err := json.Marshal(record{recordVersion, a})
	if err != nil {
		return nil, err
	}
	all := maps.Clone(a.extra)
	if err := json.Unmarshal(own, &all); err != nil {
		return nil, err
	}
	raw, err := canonjson.Marshal(all)
	if err != nil {
		return nil, err
	}
	var lines bytes.Buffer
	if err := json.Indent(&lines, raw, "", "  "); err != nil {
		return nil, err
	}
	lines.WriteByte('\n')
	if lines.Len() > maxFile {
		return nil, fault.WithText(fault.Usage, "the record of this agent would grow beyond its limit; delete the agent and create it again")
	}
	return lines.Bytes(), nil
}

// load reads every record in dir. What cannot be read is reported under its
// file name and left untouched.
func load(dir string) (agents map[string]Agent, damaged map[string]error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	agents, damaged = map[string]Agent{}, map[string]error{}
	holder := map[string]string{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") || e.IsDir() {
			continue
		}
		a, err := loadOne(filepath.Join(dir, e.Name()), id)
		if other, taken := holder[a.Address.Lower()]; err == nil && taken && !a.Address.IsZero() {
			err = corrupt(id, "claims the address of agent "+other)
		}
		if err != nil {
			damaged[e.Name()] = err
			continue
		}
		agents[a.ID], holder[a.Address.Lower()] = a, a.ID
	}
	return agents, damaged, nil
}

func loadOne(path, id string) (Agent, error) {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return Agent{}, errors.Join(corrupt(id, "is no regular file"), err)
	}
	f, err := os.Open(path)
	if err != nil {
		return Agent{}, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return Agent{}, err
	}
	return parse(raw, id)
}

// files is where records are written; tests stop it between two steps.
type files interface {
	Write(path string, data []byte) error
	Remove(path string) error
}

type disk struct{}

func (disk) Write(path string, data []byte) error { return atomicfile.Write(path, data) }
func (disk) Remove(path string) error             { return atomicfile.Remove(path) }
