package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
)

const planted = "correct horse battery staple"

// carriers are the shapes in which a secret reaches a printer by accident.
func carriers() map[string]any {
	type inner struct{ hidden Bytes }
	s := New([]byte(planted))
	return map[string]any{
		"value": s, "pointer": &s, "slice": []Bytes{s}, "map": map[string]Bytes{"k": s},
		"exported field":   struct{ S Bytes }{s},
		"unexported field": inner{s},
		"behind pointer":   &inner{s},
		"interface":        struct{ V any }{inner{s}},
		"error":            fmt.Errorf("with %v: %w", s, io.EOF),
	}
}

func leaks(text string) bool {
	decimal := strings.Trim(fmt.Sprintf("%d", []byte(planted)), "[]")
	for _, form := range []string{planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted), decimal} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestNoVerbPrintsIt(t *testing.T) {
	t.Parallel()
	for name, v := range carriers() {
		for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
			for _, flags := range []string{"", "+", "#", " ", "0", "-20", "20.3", "+#"} {
				if text := fmt.Sprintf("%"+flags+string(verb), v); leaks(text) {
					t.Errorf("%s under %%%s%c: %s", name, flags, verb, text)
				}
			}
		}
	}
	s := New([]byte(planted))
	for _, text := range []string{s.String(), s.GoString(), fmt.Sprint(s), fmt.Sprintf("%10d", s)} {
		if text != Redacted {
			t.Errorf("printed %q", text)
		}
	}
}

func TestNoLoggerWritesIt(t *testing.T) {
	t.Parallel()
	for name, v := range carriers() {
		var text, lines bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("x", "secret", v)
		slog.New(slog.NewJSONHandler(&lines, nil)).With("secret", v).WithGroup("g").Info("x", "again", v)
		if leaks(text.String()) || leaks(lines.String()) {
			t.Errorf("%s: %s%s", name, &text, &lines)
		}
	}
}

func TestNoEncoderWritesIt(t *testing.T) {
	t.Parallel()
	for name, v := range carriers() {
		if text, err := json.Marshal(v); err == nil && leaks(string(text)) {
			t.Errorf("JSON of %s: %s", name, text)
		}
		var buf bytes.Buffer
		if err := gob.NewEncoder(&buf).Encode(v); err == nil && leaks(buf.String()) {
			t.Errorf("gob of %s", name)
		}
		if text, err := xml.Marshal(v); err == nil && leaks(string(text)) {
			t.Errorf("XML of %s", name)
		}
	}
	s := New([]byte(planted))
	for _, marshal := range []func() ([]byte, error){s.MarshalText, s.MarshalJSON, s.MarshalBinary} {
		if b, err := marshal(); !errors.Is(err, ErrSerialise) || b != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
}

func TestDestroyReachesEveryCopy(t *testing.T) {
	t.Parallel()
	raw := []byte(planted)
	s := Take(raw)
	same, apart := s, s.Clone()
	s.Destroy()
	if !bytes.Equal(raw, make([]byte, len(raw))) {
		t.Error("the bytes are still there")
	}
	if !s.IsZero() || !same.IsZero() || same.Expose() != nil || same.Len() != 0 {
		t.Error("a copy outlived Destroy")
	}
	if string(apart.Expose()) != planted {
		t.Error("a clone did not")
	}
	s.Destroy()
	Bytes{}.Destroy()
}

func TestNewCopies(t *testing.T) {
	t.Parallel()
	raw := []byte(planted)
	s := New(raw)
	clear(raw)
	if string(s.Expose()) != planted {
		t.Error("the secret shares the caller's bytes")
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	a, b := New([]byte(planted)), New([]byte(planted))
	if !a.Equal(b) || !a.Equal(a) {
		t.Error("equal secrets differ")
	}
	for name, other := range map[string]Bytes{"another": New([]byte("x" + planted[1:])), "shorter": New([]byte(planted[1:])), "empty": New(nil), "zero": {}} {
		if a.Equal(other) || other.Equal(a) {
			t.Errorf("equal to %s", name)
		}
	}
	if (Bytes{}).Equal(Bytes{}) || New(nil).Equal(New(nil)) {
		t.Error("an absent key matches an absent key")
	}
}

func TestRandom(t *testing.T) {
	t.Parallel()
	a, errA := Random(nil, 32)
	b, errB := Random(nil, 32)
	if errA != nil || errB != nil || a.Len() != 32 || a.Equal(b) {
		t.Error("randomness repeats or fails")
	}
	s, err := Random(strings.NewReader("0123456789"), 10)
	if err != nil || string(s.Expose()) != "0123456789" {
		t.Errorf("the reader was not used: %v", err)
	}
	for name, r := range map[string]io.Reader{"short": strings.NewReader("012"), "broken": iotest.ErrReader(io.ErrClosedPipe)} {
		if s, err := Random(r, 10); err == nil || !s.IsZero() {
			t.Errorf("%s reader: %v", name, err)
		}
	}
}
