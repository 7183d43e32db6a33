package base64url

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "Zg": "f", "Zg==": "f", "Zm8": "fo", "Zm8=": "fo", "Zm9v": "foo", "-_-_": "\xfb\xff\xbf",
	} {
		got, err := Decode(in)
		if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"Z", "Zg=", "Zg===", "Zg====", "Zm9v=", "Zm9v====", "=", "==", "====", "Z===", "Zm8==",
		"Zm9v\n", "Zm\r\n9v", "\nZm9v", " Zm9v", "Zm9v ", "Zm+v", "Zm/v", "Zm.v", "Zé9v", "Zm9v\x00",
		"Zh", "Zm9", "Zm9=", // bits of the last character that no byte carries
	} {
		if got, err := Decode(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestDecodeExact(t *testing.T) {
	t.Parallel()
	for n := range 40 {
		raw := bytes.Repeat([]byte{0xa5}, n)
		for _, text := range []string{Encode(raw), base64.URLEncoding.EncodeToString(raw)} {
			if got, err := DecodeExact(text, n); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%d bytes: %x, %v", n, got, err)
			}
			for _, other := range []int{n - 1, n + 1} {
				if other < 0 {
					continue
				}
				if _, err := DecodeExact(text, other); !errors.Is(err, ErrMalformed) {
					t.Errorf("%d bytes passed as %d", n, other)
				}
			}
		}
	}
	if _, err := DecodeExact(strings.Repeat("A", 1<<20), 32); !errors.Is(err, ErrMalformed) {
		t.Error("a long text passed")
	}
}

// FuzzDecode: what decodes has one unpadded form, and the standard decoder
// agrees on it.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "Zg", "Zg==", "Zm9v", "-_-_", "Zh", "Zm9v\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Decode(s)
		if err != nil {
			return
		}
		if Encode(got) != strings.TrimRight(s, "=") {
			t.Errorf("%q has another form: %q", s, Encode(got))
		}
		if want, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "=")); err != nil || !bytes.Equal(want, got) {
			t.Errorf("%q: the standard decoder says %q, %v", s, want, err)
		}
	})
}
