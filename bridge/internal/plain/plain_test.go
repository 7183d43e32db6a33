package plain

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("a", MaxText)
	for in, want := range map[string]string{
		"":                              "",
		"two\nlines":                    "two\nlines",
		"a\x00b\x1bc\x7f\r":             "abc",
		"half \xc3":                     "half ",
		full:                            full,
		full + "a":                      full + "…",
		strings.Repeat("ü", MaxText):    strings.Repeat("ü", MaxText/2) + "…",
		"a" + strings.Repeat("ü", 1000): "a" + strings.Repeat("ü", MaxText/2-1) + "…",
	} {
		if got := Text(in); got != want {
			t.Errorf("%.20q became %.20q (%d bytes), want %d bytes", in, got, len(got), len(want))
		}
	}
}
