package notify

import (
	"errors"
	"strings"
	"testing"

	"osaurus/bridge/internal/plain"
)

// TestNotices is one test: the centre is one for the process.
func TestNotices(t *testing.T) {
	type choice struct{ id, action string }
	chosen := make(chan choice, 10)
	start := func() error {
		return Start("Review", "Deny", func(id, action string) { chosen <- choice{id, action} })
	}
	if err := start(); !errors.Is(err, ErrNoBundle) {
		t.Errorf("outside a bundle: %v", err)
	}
	if err := Show("1", "t", "x", true); !errors.Is(err, ErrNoBundle) {
		t.Errorf("shown outside a bundle: %v", err)
	}
	Remove("1")
	fakeBundle()
	for range 2 {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("ü", plain.MaxText)
	for _, n := range []struct {
		id, title, text string
		ask             bool
	}{{"1", "first", "a\x00b\x1b", true}, {"2", "second", long, false}, {"1", "first again", "\xff", true}} {
		if err := Show(n.id, n.title, n.text, n.ask); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fakeShown(), "1|first again||1\n2|second|"+long[:plain.MaxText]+"…|0\n"; got != want {
		t.Errorf("shown is %q", got)
	}
	Remove("2")
	for _, action := range []string{"approve", "", Deny, Review, Open} {
		fakeChoose("1", action)
		if action == "approve" || action == "" {
			continue // of nobody's
		}
		if got := <-chosen; got != (choice{"1", action}) {
			t.Errorf("chosen is %+v, want %s", got, action)
		}
	}
	if fakeShown() != "" || len(chosen) != 0 {
		t.Errorf("left is %q, and %d choices", fakeShown(), len(chosen))
	}
}
