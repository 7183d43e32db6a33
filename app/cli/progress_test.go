package cli

import (
	"bytes"
	"regexp"
	"testing"

	"osaurus/engine/storage"
)

// TestProgressTellsBytes: the bar says what is worked on, how many bytes of
// how many are done, and a time that is left.
func TestProgressTellsBytes(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out, 0)
	p.show(storage.Progress{Label: "chat-history", Done: 40e6, Total: 120e6})
	want := regexp.MustCompile(`chat-history +33% .*\(40/120 MB.*\[\d+s:\d+s\]`)
	if !want.MatchString(out.String()) {
		t.Errorf("%q", out.String())
	}
}
