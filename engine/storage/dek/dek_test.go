package dek

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"osaurus/engine/secret"
)

func sequence(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func testKey(t testing.TB) Key {
	t.Helper()
	k, err := New(secret.Take(sequence(0, Size)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKnownAnswers pins every derivation: the id is decisions D1's, the rest
// was computed with another HKDF from the labels.
func TestKnownAnswers(t *testing.T) {
	t.Parallel()
	k := testKey(t)
	master, err := Derive(secret.Take(sequence(0, Size)), sequence(0x40, SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"id", func() []byte { id := k.ID(); return id[:] }(), "386091cd3fd8c250"},
		{"journal", k.Journal().Expose(), "59a7492f82bdff8a620af4ebf48409e5b8d5701f86aba67129f8a0f8d29640f4"},
		{"manifest", k.Manifest().Expose(), "8fc330c4f20e77cae8385989e0201d97eaae9914f8571a9b3d412e644bc47edd"},
		{"file", k.derive(sequence(0xa0, 16), labelFile, Size), "38f747b531f9c22ebeb756c568e4018d932a0a645f24f3ed76f290b873ddf83b"},
		{"master", master.Bytes().Expose(), "87801c97fd537ee2d780962c1b573c1231b7282593a48e7614e1e836e36a1ae7"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, Size - 1, Size + 1, 2 * Size} {
		if _, err := New(secret.Take(make([]byte, n))); !errors.Is(err, ErrKeySize) {
			t.Errorf("a key of %d bytes: %v", n, err)
		}
		if _, err := Derive(secret.Take(make([]byte, n)), make([]byte, SaltSize)); !errors.Is(err, ErrKeySize) {
			t.Errorf("a master of %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{0, SaltSize - 1, SaltSize + 1} {
		if _, err := Derive(secret.Take(make([]byte, Size)), make([]byte, n)); !errors.Is(err, ErrSalt) {
			t.Errorf("a salt of %d bytes: %v", n, err)
		}
	}
	if _, err := Generate(strings.NewReader("short")); err == nil {
		t.Error("a key was made from too little randomness")
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	a, err := Generate(bytes.NewReader(sequence(9, Size)))
	if err != nil {
		t.Fatal(err)
	}
	b := a.Clone()
	if !a.Equal(b) || a.ID() != b.ID() || a.Equal(testKey(t)) {
		t.Error("a clone differs, or another key is equal")
	}
	a.Destroy()
	if !a.IsZero() || b.IsZero() || a.Equal(b) {
		t.Error("destroying a key did not destroy it alone")
	}
	defer func() {
		if recover() == nil {
			t.Error("a destroyed key derived another")
		}
	}()
	a.Manifest()
}

func TestNeverPrinted(t *testing.T) {
	t.Parallel()
	k := testKey(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		text := fmt.Sprintf(verb, struct{ k Key }{k})
		if strings.Contains(text, "0001020304") || strings.Contains(text, "0 1 2 3 4") || strings.Contains(text, "0x0, 0x1, 0x2") {
			t.Errorf("%s shows the key: %s", verb, text)
		}
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	id := testKey(t).ID()
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "386091cd3fd8c25", "386091cd3fd8c2500", "386091CD3FD8C250", "386091cd3fd8c25g", "0x6091cd3fd8c250"} {
		if _, err := ParseID(s); !errors.Is(err, ErrIDFormat) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, want := range []ID{id, {}} {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := ID{1}
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%q became %v, %v", text, got, err)
		}
	}
	if err := new(ID).UnmarshalText([]byte("x")); !errors.Is(err, ErrIDFormat) {
		t.Error(err)
	}
}
