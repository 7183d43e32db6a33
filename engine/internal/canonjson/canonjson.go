// Package canonjson writes and reads the JSON of the wire formats: keys
// sorted, no HTML escaping, duplicate keys refused on input.
package canonjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	strict "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// MaxDepth is the deepest nesting Unmarshal accepts (server.md: 256).
const MaxDepth = 256

// Errors of Check and Unmarshal.
var (
	ErrDuplicateKey = errors.New("json: an object key appears twice")
	ErrTooDeep      = errors.New("json: nested too deeply")
	ErrTrailing     = errors.New("json: data after the value")
)

// Marshal writes v with sorted keys and without escaping /, <, > or &.
func Marshal(v any) ([]byte, error) {
	raw, err := encode(v)
	if err != nil {
		return nil, err
	}
	// Going through a generic value sorts struct fields too; numbers stay as
	// they were written.
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var generic any
	if err := dec.Decode(&generic); err != nil {
		return nil, err
	}
	return encode(generic)
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// exact is encoding/json but for names, which must be written as they stand
// in the format. There "ENCPUB" would be "encPub" too, and the last of both
// would count.
var exact = strict.JoinOptions(jsonv1.DefaultOptionsV1(), strict.MatchCaseInsensitiveNames(false))

// Unmarshal reads exactly one JSON value into v after Check. Unknown fields
// are ignored, and so are names in another case.
func Unmarshal(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	return strict.Unmarshal(data, v, exact)
}

// Check refuses duplicate keys, nesting beyond MaxDepth and trailing data.
// Errors never contain the input.
func Check(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type frame struct {
		keys map[string]bool // nil for an array
		key  bool            // the next token is a key
	}
	var stack []frame
	for first := true; first || len(stack) > 0; first = false {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("json: malformed near byte %d", dec.InputOffset())
		}
		if top := len(stack) - 1; top >= 0 && stack[top].keys != nil {
			if name, ok := tok.(string); ok && stack[top].key {
				if stack[top].keys[name] {
					return ErrDuplicateKey
				}
				stack[top].keys[name] = true
				stack[top].key = false
				continue
			}
			stack[top].key = true
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, frame{keys: map[string]bool{}, key: true})
		case json.Delim('['):
			stack = append(stack, frame{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		if len(stack) > MaxDepth {
			return ErrTooDeep
		}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return ErrTrailing
	}
	return nil
}
