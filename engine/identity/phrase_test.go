package identity

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

type phraseVector struct {
	Name, Text, Expect, Address string
	Word, Words                 int
}

func TestPhraseVectors(t *testing.T) {
	t.Parallel()
	var vectors []phraseVector
	readVectors(t, "phrases.json", &vectors)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			m, err := ParsePhrase(text(v.Text))
			var wrong *PhraseError
			switch v.Expect {
			case "success":
				if err != nil || m.Address().String() != v.Address {
					t.Fatalf("got %s, %v", m.Address(), err)
				}
				return
			case "invalid_scalar":
				if !errors.Is(err, signature.ErrScalar) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if !errors.As(err, &wrong) || !errors.Is(err, fault.InvalidPhrase) || !m.IsZero() {
				t.Fatalf("got %v", err)
			}
			if got := kindOf(wrong); got != v.Expect || wrong.Word != v.Word || v.Expect == "count" && wrong.Words != v.Words {
				t.Errorf("got %s %+v, want %s", got, wrong, v.Expect)
			}
			echoes(t, err, v.Text)
		})
	}
}

func kindOf(e *PhraseError) string {
	switch {
	case e.Word > 0:
		return "word"
	case e.Checksum:
		return "checksum"
	case e.TooLong:
		return "too_long"
	}
	return "count"
}

var letters = regexp.MustCompile(`[a-z]{3,}`)

// echoes fails when an error repeats a word that was typed and that it would
// not say by itself.
func echoes(t *testing.T, err error, typed string) {
	t.Helper()
	own := "word words is not in the bip list every but checksum does match wrong or two are swapped want found text too long to phrase english"
	for _, w := range letters.FindAllString(strings.ToLower(typed), -1) {
		if strings.Contains(strings.ToLower(err.Error()), w) && !strings.Contains(own, w) {
			t.Errorf("the error repeats %q", w)
		}
	}
}

func TestPhraseEncodesTheMasterItself(t *testing.T) {
	t.Parallel()
	for scalar, want := range map[string]string{aliceHex: alicePhrase, bobHex: bobPhrase} {
		got, err := master(t, scalar).Phrase()
		if err != nil || string(got.Expose()) != want {
			t.Errorf("%s…: wrong phrase (%v)", scalar[:6], err)
		}
	}
}

func TestPhraseLengthLimit(t *testing.T) {
	t.Parallel()
	for extra, tooLong := range map[int]bool{0: false, 1: true} {
		padded := alicePhrase + strings.Repeat(" ", maxPhraseBytes-len(alicePhrase)+extra)
		_, err := ParsePhrase(text(padded))
		var wrong *PhraseError
		if tooLong != (errors.As(err, &wrong) && wrong.TooLong) || !tooLong && err != nil {
			t.Errorf("%d bytes: %v", len(padded), err)
		}
	}
}

func TestRecoveryCode(t *testing.T) {
	t.Parallel()
	code, err := newRecoveryCode(strings.NewReader("\x00\x1a\xff\x7f\x80\x01\x02\xfe"))
	if err != nil || string(code.Expose()) != "OSAURUS-001A-FF7F-8001-02FE" {
		t.Fatalf("got %q, %v", code.Expose(), err)
	}
	if _, err := newRecoveryCode(strings.NewReader("short")); err == nil {
		t.Error("a short read of randomness passed")
	}
}

// FuzzParsePhrase: no panic; what parses gives a master whose own phrase
// parses to the same master.
func FuzzParsePhrase(f *testing.F) {
	var vectors []phraseVector
	readVectors(f, "phrases.json", &vectors)
	for _, v := range vectors {
		f.Add([]byte(v.Text))
	}
	f.Fuzz(func(t *testing.T, typed []byte) {
		m, err := ParsePhrase(secret.New(typed))
		if err != nil {
			return
		}
		words, err := m.Phrase()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePhrase(words)
		if err != nil || again.Address() != m.Address() {
			t.Fatalf("the phrase of a parsed phrase: %v", err)
		}
	})
}
