package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThePictureIsCurrent fails when the code imports what was not drawn.
func TestThePictureIsCurrent(t *testing.T) {
	t.Parallel()
	if err := run("../..", true); err != nil {
		t.Error(err)
	}
	raw, err := os.ReadFile(filepath.Join("../..", picture))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(raw))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	g := graph{}
	g.add("osaurus/app/cli", []string{"osaurus/engine", "osaurus/engine/control", "fmt"})
	g.add("osaurus/engine/control", []string{"osaurus/engine", "osaurus/engine/storage/chats"})
	g.add("osaurus/engine", []string{"osaurus/engine/storage", "osaurus/engine/fault"})
	g.add("osaurus/engine/storage/chats", []string{"osaurus/engine/storage"})
	g.add("osaurus/engine/discovery/discoverytest", []string{"osaurus/engine/discovery"})
	g.add("osaurus/engine/fault", nil)
	at, err := g.levels()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"foundation": 0, "engine/storage": 0, "engine": 1, "engine/control": 2, "app/cli": 3} {
		if got, ok := at[name]; !ok || got != want {
			t.Errorf("%s is at %d, want %d", name, got, want)
		}
	}
	if got := strings.Join(g.direct("app/cli"), " "); got != "engine/control" {
		t.Errorf("app/cli leads to %s", got)
	}
	if _, ok := at["engine/discovery"]; ok {
		t.Error("a test helper was drawn")
	}
	g.add("osaurus/engine/storage", []string{"osaurus/engine/control"})
	if _, err := g.draw(); err == nil {
		t.Error("a circle was drawn")
	}
}

var links = regexp.MustCompile(`\]\(([^)#]+)\)`)

// TestThePageLinksToWhatIsThere follows every link of the page, and wants one
// to each protocol.
func TestThePageLinksToWhatIsThere(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../resources/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for _, m := range links.FindAllStringSubmatch(string(page), -1) {
		at := filepath.Join("../../resources", m[1])
		if _, err := os.Stat(at); err != nil {
			t.Errorf("the page links to %s: %v", m[1], err)
		}
		linked[filepath.Clean(at)] = true
	}
	for _, depth := range []string{"*", "*/*"} {
		found, err := filepath.Glob("../../engine/" + depth + "/PROTOCOL.md")
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range found {
			if !linked[filepath.Clean(doc)] {
				t.Errorf("the page does not link to %s", doc)
			}
		}
	}
}
