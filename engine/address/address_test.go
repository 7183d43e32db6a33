package address

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// eip55 are the examples of EIP-55 and two well-known test accounts.
var eip55 = []string{
	"0x52908400098527886E0F7030069857D2E4169EE7",
	"0x8617E340B3D01FA5F11F306F4090FD50E238070D",
	"0xde709f2102306220921060314715629080e2fb77",
	"0x27b1fdb04752bbc536007a920d24acb045561c26",
	"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
	"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
	"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
	"0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
	"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
	"0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	for _, s := range eip55 {
		a, err := ParseChecksummed(s)
		if err != nil || a.String() != s {
			t.Errorf("%s: %v, %v", s, a, err)
		}
		for _, same := range []string{strings.ToLower(s), "0x" + strings.ToUpper(s[2:]), "0X" + s[2:], s[2:]} {
			if b, err := ParseChecksummed(same); err != nil || b != a {
				t.Errorf("%s: %v, %v", same, b, err)
			}
		}
		if a.Lower() != strings.ToLower(s) {
			t.Errorf("lower: %s", a.Lower())
		}
	}
}

// TestOneWrongLetter changes the case of each letter of a mixed address.
func TestOneWrongLetter(t *testing.T) {
	t.Parallel()
	const good = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	for i := 2; i < len(good); i++ {
		c := good[i]
		switch {
		case c >= 'a':
			c -= 'a' - 'A'
		case c >= 'A':
			c += 'a' - 'A'
		default:
			continue
		}
		bad := good[:i] + string(c) + good[i+1:]
		if _, err := ParseChecksummed(bad); !errors.Is(err, ErrChecksum) {
			t.Errorf("%s: %v", bad, err)
		}
		if _, err := Parse(bad); err != nil {
			t.Errorf("the wire takes any case: %v", err)
		}
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	good := eip55[0]
	for _, s := range []string{
		"", "0x", good[:41], good + "0", "1x" + good[2:], good[:2] + "g" + good[3:], " " + good, good + "\n",
		"0x" + strings.Repeat("é", 20), "x0" + good[2:], good[2:] + "00",
	} {
		for name, parse := range map[string]func(string) (Address, error){"Parse": Parse, "ParseChecksummed": ParseChecksummed} {
			if a, err := parse(s); !errors.Is(err, ErrMalformed) || !a.IsZero() {
				t.Errorf("%s(%q) = %v, %v", name, s, a, err)
			}
		}
	}
}

func TestKeccak(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":    "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
		"abc": "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45",
	} {
		if got := Keccak256([]byte(in)); hex.EncodeToString(got[:]) != want {
			t.Errorf("%q: %x", in, got)
		}
	}
	if Keccak256([]byte("a"), nil, []byte("bc")) != Keccak256([]byte("abc")) {
		t.Error("parts are not simply joined")
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	type record struct {
		A, None Address
		By      map[Address]int
	}
	a, err := Parse(eip55[8])
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(record{A: a, By: map[Address]int{a: 1}})
	if want := `{"A":"` + eip55[8] + `","None":"","By":{"` + eip55[8] + `":1}}`; err != nil || string(text) != want {
		t.Fatalf("%s, %v", text, err)
	}
	back := record{None: a}
	if err := json.Unmarshal(text, &back); err != nil || back.A != a || !back.None.IsZero() || back.By[a] != 1 {
		t.Errorf("%+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`"0x12"`), &a); !errors.Is(err, ErrMalformed) || a.IsZero() {
		t.Errorf("a bad text changed the address or passed: %v", err)
	}
	if got := a.Short(); got != "0xf39F…2266" {
		t.Errorf("short: %s", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range eip55 {
		f.Add(s)
		f.Add(s[2:])
	}
	f.Add("0x")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		for _, form := range []string{a.String(), a.Lower()} {
			if b, err := ParseChecksummed(form); err != nil || a != b {
				t.Errorf("%q does not survive as %s", s, form)
			}
		}
		if !strings.EqualFold(a.Lower()[2:], s[len(s)-2*Size:]) {
			t.Errorf("%q was read as %s", s, a.Lower())
		}
	})
}
