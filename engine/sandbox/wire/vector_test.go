package wire

import (
	"encoding/json"
	"os"
	"testing"
)

// TestVectors reads the examples of PROTOCOL.md section 1.
func TestVectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/vectors/preface.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Name, Line, Expect, Kind string }
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]Kind{"bridge": Bridge, "proxy": Proxy, "control": Control}
	for _, v := range vectors {
		p, err := ParsePreface(v.Line)
		got := "success"
		if err != nil {
			got = "malformed"
		}
		if got != v.Expect || p.Kind != kinds[v.Kind] {
			t.Errorf("%s: %s, %+v", v.Name, got, p)
		}
	}
	if len(vectors) == 0 {
		t.Error("no vectors")
	}
}
