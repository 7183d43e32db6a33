// Package settings keeps what the owner chose: one versioned JSON file for
// each concern, defaults in code, unknown keys refused, saved atomically.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// Version is the only version these files have had.
const Version = 1

// MaxFile bounds a settings file in bytes.
const MaxFile = 1 << 20

// Validator checks one concern; its error names the key and what it wants.
type Validator interface{ Validate() error }

// document is a concern with its version beside it.
type document[T any] struct {
	Version int `json:"version"`
	Values  T   `json:"settings"`
}

// Load reads path over the defaults. A missing file is the defaults. Errors
// name the file and the key.
func Load[T Validator](path string, defaults T) (T, error) {
	raw, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return defaults, nil
	}
	if err != nil {
		return defaults, err
	}
	if err := canonjson.Check(raw); err != nil {
		return defaults, fmt.Errorf("%s: %w", path, err)
	}
	// A later version may have keys that this one would call unknown.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return defaults, fmt.Errorf("%s: %w", path, err)
	}
	if !versioned(raw) {
		return defaults, fmt.Errorf("%s: %w", path, errOlder)
	}
	if v.Version != Version {
		return defaults, fmt.Errorf("%s: version is %d, this program knows %d", path, v.Version, Version)
	}
	d := document[T]{Values: defaults}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return defaults, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Values.Validate(); err != nil {
		return defaults, fmt.Errorf("%s: %w", path, err)
	}
	return d.Values, nil
}

// versioned reports whether an object has the member, whatever it says.
func versioned(raw []byte) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return true // it is refused otherwise
	}
	_, ok := members["version"]
	return ok
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(raw) > MaxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, MaxFile)
	}
	return raw, errors.Join(err, f.Close())
}

// Save validates and replaces path durably.
func Save[T Validator](path string, values T) error {
	if err := values.Validate(); err != nil {
		return fault.WithText(fault.Usage, err.Error())
	}
	raw, err := json.MarshalIndent(document[T]{Version, values}, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	return atomicfile.Write(path, append(raw, '\n'))
}
