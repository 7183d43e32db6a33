package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDeclared(t *testing.T) {
	const source = "package x\n\nfunc FuzzA(f *testing.F) {\n}\n\n// func FuzzNot(f *testing.F)\nfunc FuzzB(f *testing.F) { f.Fuzz(func(t *testing.T) {}) }\nfunc FuzzHelper(t *testing.T) {}\n"
	if got := declared([]byte(source)); !reflect.DeepEqual(got, []string{"FuzzA", "FuzzB"}) {
		t.Errorf("%q", got)
	}
}

// TestRealTarget finds one of the project's targets and fuzzes it.
func TestRealTarget(t *testing.T) {
	if testing.Short() {
		t.Skip("fuzzes")
	}
	all, err := find("base64url", []string{"osaurus/engine/internal/base64url"})
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
	if !all[0].fuzz(time.Second) {
		t.Error("it fails")
	}
}

func TestFindNothing(t *testing.T) {
	for _, match := range []string{"NoSuchTarget", "("} {
		if all, err := find(match, []string{"osaurus/engine/internal/base64url"}); err == nil {
			t.Errorf("%q finds %v", match, all)
		}
	}
}

// TestKeep: a corpus grows to its size and no further, with small inputs alone,
// and what is there stays.
func TestKeep(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "testdata", "fuzz", "FuzzX")
	for name, size := range map[string]int{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "large": maxKept + 1} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ n, want, total int }{{2, 2, 2}, {2, 0, 2}, {4, 2, 4}, {100, 1, 5}, {100, 0, 5}} {
		got, err := keep(from, to, c.n)
		list, listErr := os.ReadDir(to)
		if err != nil || listErr != nil || got != c.want || len(list) != c.total {
			t.Errorf("up to %d: %d copied, %d there, %v %v", c.n, got, len(list), err, listErr)
		}
	}
	if _, err := os.Stat(filepath.Join(to, "large")); err == nil {
		t.Error("a large input was kept")
	}
	if n, err := keep(filepath.Join(from, "none"), filepath.Join(from, "nowhere"), 3); n != 0 || err != nil {
		t.Errorf("without a cache: %d %v", n, err)
	}
}
