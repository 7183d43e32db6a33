package artifact

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestEmbeddedPins(t *testing.T) {
	t.Parallel()
	pins, err := Embedded()
	must(t, err)
	for _, c := range []struct{ name, platform, sum string }{
		{SandboxImage, "linux/arm64", "f4216228d7f2d26b1a0e2a99501f6812f1298ee06a0477c508b3e75db74b8a2f"},
		{Kernel, "linux/arm64", "67bac9f416af4cdc9b151e4ba4962d6515e0ad7acc53816761cf964aa6af6ea0"},
		{"kata-static", "linux/arm64", "647c7612e6edf789d5e14698c48c99d8bac15ad139ffaa1c8bb7d229f748d181"},
		{"initfs", "linux/arm64", "5708d65ba1914caa756a2e813831e17d7655042799310bc94efef82210c2dac6"},
	} {
		p, err := pins.Find(c.name, c.platform)
		if err != nil || p.SHA256 != c.sum {
			t.Errorf("%s for %s: %v %v", c.name, c.platform, p.SHA256, err)
		}
	}
	for _, p := range pins {
		if p.Note == "" || strings.Trim(p.SHA256, "0") == "" {
			t.Errorf("%s for %s has no note or no hash", p.Name, p.Platform)
		}
	}
	if _, err := pins.Find(Kernel, "linux/riscv64"); !errors.Is(err, ErrPin) {
		t.Errorf("a platform that is not there: %v", err)
	}
}

func TestParsePinsRefuses(t *testing.T) {
	t.Parallel()
	var good []map[string]any
	must(t, json.Unmarshal(embedded, &good))
	at := func(name string, platform string) int {
		for i, p := range good {
			if p["name"] == name && p["platform"] == platform {
				return i
			}
		}
		t.Fatal("no " + name)
		return 0
	}
	img, kernel, sum := at(SandboxImage, "linux/arm64"), at("kata-static", "linux/arm64"), strings.Repeat("a", 64)
	cases := map[string]func(all []map[string]any) []map[string]any{}
	change := func(name string, i int, key string, value any) {
		cases[name] = func(all []map[string]any) []map[string]any { all[i][key] = value; return all }
	}
	change("malformed hash", kernel, "sha256", "abc")
	change("upper-case hash", kernel, "sha256", strings.Repeat("A", 64))
	change("no hash", kernel, "sha256", "")
	change("a tag", img, "reference", "ghcr.io/osaurus-ai/sandbox:latest")
	change("a tag beside the digest", img, "reference", "ghcr.io/osaurus-ai/sandbox:latest@sha256:"+good[img]["sha256"].(string))
	change("another digest", img, "reference", "ghcr.io/osaurus-ai/sandbox@sha256:"+sum)
	change("no registry", img, "reference", "@sha256:"+good[img]["sha256"].(string))
	change("a folder that goes up", img, "reference", "libexec/../image@sha256:"+good[img]["sha256"].(string))
	change("unknown kind", img, "kind", "oci-image")
	change("urls of an index", img, "urls", []string{"https://example.com"})
	change("reference of a file", kernel, "reference", "x@sha256:"+sum)
	change("no urls", kernel, "urls", []string{})
	change("plain http", kernel, "urls", []string{"http://example.com/kernel"})
	change("a path that goes up", kernel, "urls", []string{"libexec/../../etc/passwd"})
	change("no cap", kernel, "max_bytes", 0)
	change("a cap over the limit", kernel, "max_bytes", MaxFile+1)
	change("an image's cap over the limit", img, "max_bytes", int64(MaxImage)+1)
	change("unknown platform", kernel, "platform", "darwin/arm64")
	change("a name with a slash", kernel, "name", "a/b")
	change("unknown member", kernel, "sha512", sum)
	cases["duplicate"] = func(all []map[string]any) []map[string]any { return append(all, all[0]) }
	for _, r := range required {
		cases["missing "+r[0]+" "+r[1]] = func(all []map[string]any) []map[string]any {
			i := at(r[0], r[1])
			return append(all[:i:i], all[i+1:]...)
		}
	}
	for name, apply := range cases {
		var all []map[string]any
		must(t, json.Unmarshal(embedded, &all))
		raw, err := json.Marshal(apply(all))
		must(t, err)
		if _, err := ParsePins(raw); !errors.Is(err, ErrPin) {
			t.Errorf("%s: got %v, want ErrPin", name, err)
		}
	}
	change("exactly the cap", kernel, "max_bytes", MaxFile)
	var all []map[string]any
	must(t, json.Unmarshal(embedded, &all))
	raw, err := json.Marshal(cases["exactly the cap"](all))
	must(t, err)
	_, err = ParsePins(raw)
	must(t, err)
	if _, err := ParsePins([]byte(`[{"name":"a","name":"b"}]`)); !errors.Is(err, ErrPin) {
		t.Errorf("a repeated member: %v", err)
	}
}

func FuzzParsePins(f *testing.F) {
	f.Add(embedded)
	f.Add([]byte(`[{"kind":"file","name":"x","platform":"linux/amd64","urls":["libexec/"]}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		pins, err := ParsePins(raw)
		if err != nil {
			return
		}
		for _, p := range pins {
			p.libexec()
			if len(p.SHA256) != hexDigits {
				t.Fatal("a bad hash came through")
			}
		}
	})
}
