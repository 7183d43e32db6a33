package main

import (
	"reflect"
	"testing"
	"time"
)

func TestParseList(t *testing.T) {
	const out = "?   \tosaurus/app/osaurus\t[no test files]\nFuzzA\nFuzzB\nok  \tosaurus/engine/a\t0.01s\nok  \tosaurus/engine/b\t0.01s\nFuzzC\nok  \tosaurus/engine/c\t(cached)\n"
	want := []target{{"osaurus/engine/a", "FuzzA"}, {"osaurus/engine/a", "FuzzB"}, {"osaurus/engine/c", "FuzzC"}}
	if got := parseList(out); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
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
