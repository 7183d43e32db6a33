package canonjson

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMarshal(t *testing.T) {
	t.Parallel()
	type inner struct {
		Z int    `json:"z"`
		A string `json:"a,omitempty"`
	}
	for want, v := range map[string]any{
		`{"a":"</&>","z":1}`:       inner{1, "</&>"},
		`{"z":0}`:                  inner{},
		`[{"z":2},null,1.50,"é"]`:  []any{inner{Z: 2}, nil, json.Number("1.50"), "é"},
		`{"":1,"A":2,"a":3,"b":4}`: map[string]int{"b": 4, "a": 3, "A": 2, "": 1},
		`18446744073709551615`:     uint64(1<<64 - 1),
		"\"\\u2028\\n\\u0001\"":    "\u2028\n\x01",
	} {
		got, err := Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	if _, err := Marshal(func() {}); err == nil {
		t.Error("a function was written")
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, good := range []string{`1`, `""`, `null`, `{}`, `[]`, ` {"a":{"a":1},"b":[{"a":1},{"a":2}]} `, nested(MaxDepth), `{"a":"a","b":"a"}`} {
		if err := Check([]byte(good)); err != nil {
			t.Errorf("%.40s: %v", good, err)
		}
	}
	for bad, want := range map[string]error{
		`{"a":1,"a":2}`:            ErrDuplicateKey,
		`[{"b":{"a":1,"a":1}}]`:    ErrDuplicateKey,
		`{"a":1,"\u0061":2}`:       ErrDuplicateKey,
		`{"a":[],"b":{},"a":null}`: ErrDuplicateKey,
		nested(MaxDepth + 1):       ErrTooDeep,
		strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1): ErrTooDeep,
		`{} {}`: ErrTrailing, `1 2`: ErrTrailing, `{}x`: ErrTrailing, `[],`: ErrTrailing,
	} {
		if err := Check([]byte(bad)); !errors.Is(err, want) {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
	for _, bad := range []string{``, ` `, `{`, `[1`, `{"a"`, `{"a":}`, `{a:1}`, `{"a":1,}`, `nul`, `"`, "\x00", `{"hunter2"}`, `[1 2]`} {
		if err := Check([]byte(bad)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUnmarshal(t *testing.T) {
	t.Parallel()
	var v struct{ A int }
	if err := Unmarshal([]byte(`{"A":1,"unknown":{}}`), &v); err != nil || v.A != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := Unmarshal([]byte(`{"a":2,"A":1,"ａ":3}`), &v); err != nil || v.A != 1 {
		t.Errorf("a name in another case counted: %+v, %v", v, err)
	}
	if err := Unmarshal([]byte(`{"A":2,"A":3}`), &v); !errors.Is(err, ErrDuplicateKey) || v.A != 1 {
		t.Errorf("a refused text changed the value: %+v, %v", v, err)
	}
}

// FuzzCheck: what passes is JSON, and survives Marshal unchanged in meaning.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `"\ud800"`, `{"a":1,"a":2}`, `[[[]]]`, `1e400`, `-0`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if Check(data) != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("%q is no JSON", data)
		}
		once, err := Marshal(json.RawMessage(data))
		if err != nil {
			t.Fatal(err)
		}
		twice, err := Marshal(json.RawMessage(once))
		if err != nil || string(once) != string(twice) {
			t.Errorf("%s is not settled: %s, %v", once, twice, err)
		}
		if same(t, data) != nil && !reflect.DeepEqual(same(t, data), same(t, once)) {
			t.Errorf("%q changed its meaning: %q", data, once)
		}
	})
}

func same(t *testing.T, data []byte) any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
