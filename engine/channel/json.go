package channel

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// The tolerant reader: members in any order, white space, escapes, unknown
// fields. It refuses duplicate names, invalid UTF-8, nesting beyond maxNesting
// and anything after the object. Its errors are all ErrMalformed, so that no
// input ends in a message.

// parseObject calls member for each member of the object that data is. member
// reads the value with one of the functions below, or skips it.
func parseObject(data []byte, member func(name string, d *jsontext.Decoder) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(data))
	if err := readObject(d, member); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return ErrMalformed
	}
	return nil
}

func readObject(d *jsontext.Decoder, member func(name string, d *jsontext.Decoder) error) error {
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != jsontext.KindBeginObject {
		return ErrMalformed
	}
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadToken()
		if err != nil {
			return ErrMalformed
		}
		if err := member(name.String(), d); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return ErrMalformed
	}
	return nil
}

func skipValue(d *jsontext.Decoder) error {
	for base := d.StackDepth(); ; {
		if _, err := d.ReadToken(); err != nil || d.StackDepth() > maxNesting {
			return ErrMalformed
		}
		if d.StackDepth() == base {
			return nil
		}
	}
}

// readText returns a string; ok is false for null, which stands for absent.
func readText(d *jsontext.Decoder) (text []byte, ok bool, err error) {
	v, err := d.ReadValue()
	if err != nil {
		return nil, false, ErrMalformed
	}
	switch v.Kind() {
	case jsontext.KindNull:
		return nil, false, nil
	case jsontext.KindString:
		if text, err = jsontext.AppendUnquote(nil, v); err == nil {
			return text, true, nil
		}
	}
	return nil, false, ErrMalformed
}

// readInteger returns the digits of a number without fraction or exponent.
func readInteger(d *jsontext.Decoder) (string, error) {
	v, err := d.ReadValue()
	if err != nil || v.Kind() != jsontext.KindNumber || bytes.ContainsAny(v, ".eE") {
		return "", ErrMalformed
	}
	return string(v), nil
}

// readUint returns an integer from 0 to 2^64−1.
func readUint(d *jsontext.Decoder) (uint64, error) {
	digits, err := readInteger(d)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, ErrMalformed
	}
	return n, nil
}

// readFlag returns a boolean; null stands for absent.
func readFlag(d *jsontext.Decoder) (bool, error) {
	tok, err := d.ReadToken()
	if err != nil {
		return false, ErrMalformed
	}
	switch tok.Kind() {
	case jsontext.KindTrue:
		return true, nil
	case jsontext.KindFalse, jsontext.KindNull:
		return false, nil
	default:
		return false, ErrMalformed
	}
}

// quote appends s as a JSON string. Only invalid UTF-8 fails.
func quote(dst []byte, s string) ([]byte, error) {
	dst, err := jsontext.AppendQuote(dst, s)
	if err != nil {
		return dst, ErrMalformed
	}
	return dst, nil
}

// scanner is the fast reader of what our own writers produce: fixed order, no
// white space, no escapes. It gives up (bad) on anything else, and then the
// tolerant reader decides.
type scanner struct {
	rest []byte
	bad  bool
}

// has consumes lit if it comes next.
func (s *scanner) has(lit string) bool {
	if s.bad || len(s.rest) < len(lit) || string(s.rest[:len(lit)]) != lit {
		return false
	}
	s.rest = s.rest[len(lit):]
	return true
}

func (s *scanner) expect(lit string) {
	if !s.has(lit) {
		s.bad = true
	}
}

// opaque consumes a string up to its closing quote. The caller must refuse
// backslashes in it, as the base64 gate does.
func (s *scanner) opaque() []byte {
	end := bytes.IndexByte(s.rest, '"')
	if s.bad || end < 0 {
		s.bad = true
		return nil
	}
	text := s.rest[:end]
	s.rest = s.rest[end+1:]
	return text
}

// text is opaque for printable ASCII without escapes.
func (s *scanner) text() []byte {
	text := s.opaque()
	for _, c := range text {
		if c < 0x20 || c >= 0x7f || c == '\\' {
			s.bad = true
		}
	}
	return text
}

// number consumes an integer from 0 to 2^64−1.
func (s *scanner) number() uint64 {
	end := 0
	for end < len(s.rest) && s.rest[end] >= '0' && s.rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(string(s.rest[:end]), 10, 64)
	if s.bad || err != nil || (end > 1 && s.rest[0] == '0') {
		s.bad = true
		return 0
	}
	s.rest = s.rest[end:]
	return n
}

// members consumes the rest of an object of strings. It leaves large ones to
// the tolerant reader, which finds duplicate names faster.
func (s *scanner) members() []header {
	var all []header
	for !s.bad && !s.has("}") {
		if len(all) > 0 {
			s.expect(",")
		}
		s.expect(`"`)
		name := string(s.text())
		s.expect(`:"`)
		value := string(s.text())
		duplicate := slices.ContainsFunc(all, func(h header) bool { return h.name == name })
		s.bad = s.bad || duplicate || len(all) == 32
		all = append(all, header{name, value})
	}
	return all
}

// done reports whether everything was read and nothing was unexpected.
func (s *scanner) done() bool { return !s.bad && len(s.rest) == 0 }
