package settings

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"osaurus/engine/atomicfile"
)

// OlderSuffix ends the name of a file that an older host wrote, once it was
// set aside; where that name is taken, a dash and 8 hex digits follow.
const OlderSuffix = ".older"

// errOlder says that a file has no version: no host of this kind wrote it.
var errOlder = errors.New("no version: an older host wrote it")

// Adopt is Load where an older host may have left a file of the same name. Its
// bytes are set aside, and what take, if not nil, finds in its members stands
// over the defaults in a new file of ours, if it is valid.
func Adopt[T Validator](path string, defaults T, take func(older map[string]json.RawMessage, values *T)) (T, error) {
	values, err := Load(path, defaults)
	if !errors.Is(err, errOlder) {
		return values, err
	}
	raw, err := read(path)
	if err != nil {
		return defaults, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return defaults, fmt.Errorf("%s: %w", path, err)
	}
	if take != nil {
		if take(members, &values); values.Validate() != nil {
			values = defaults
		}
	}
	if err := setAside(path, raw); err != nil {
		return defaults, err
	}
	return values, Save(path, values)
}

// setAside gives the file a second name, which stays when the first is
// replaced. Doing it again changes nothing.
func setAside(path string, raw []byte) error {
	sum := sha256.Sum256(raw)
	for _, name := range []string{path + OlderSuffix, path + OlderSuffix + "-" + hex.EncodeToString(sum[:4])} {
		err := os.Link(path, name)
		if err == nil {
			return atomicfile.SyncDir(filepath.Dir(path))
		}
		if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("setting aside what an older host wrote: %w", err)
		}
		if there, err := read(name); err == nil && bytes.Equal(there, raw) {
			return nil
		}
	}
	return fmt.Errorf("%s: an older host wrote it, and the names to set it aside under are taken", path)
}

// TakeServer takes over what an older host's server.json says beyond doubt.
func TakeServer(older map[string]json.RawMessage, s *Server) {
	var port int
	if json.Unmarshal(older["port"], &port) == nil && port > 0 && port <= maxPort {
		s.Port = port
	}
	var expose bool
	if json.Unmarshal(older["exposeToNetwork"], &expose) == nil {
		s.Expose = expose
	}
}
