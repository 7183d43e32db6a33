package eventlog

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hidden = "hunter2secretvalue"

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"Authorization: Bearer " + hidden, "bearer\t" + hidden, "BEARER  osk-v1." + hidden,
		"osk-v1." + hidden + ".abc", "x osk-v2." + hidden,
		`{"apiKey":"` + hidden + `"}`, `{"api_key" : "` + hidden + `"}`, `{"sealedApiKey":{"ct":"` + hidden + `","enc":"x"}}`,
		`{"signature":"` + hidden + `"}`, `{"serverSignature":"` + hidden + `"}`, `{"sig":"` + hidden + `"}`, `{"nonce":"` + hidden + `"}`,
		`{"encPub":"` + hidden + `"}`, `{"enc_pub":"` + hidden + `"}`, `{"enc":"` + hidden + `"}`, `{"ct":"` + hidden + `"}`,
		`{"wallet_signature":"` + hidden + `"}`, `{"attestation":"` + hidden + `"}`, `{"token":"` + hidden + `"}`,
		`{"Authorization":"Basic ` + hidden + `"}`, `{"mnemonic":"` + hidden + `"}`, `{"device_id":"` + hidden + `"}`,
		`{"nonce":"` + hidden, // clipped in the middle
		`{"nonce":"a\"` + hidden + `"}`, `{"a":[{"NONCE":"` + hidden + `"}]}`,
	} {
		if got := Redact(text); strings.Contains(got, hidden) {
			t.Errorf("%s\nshows as %s", text, got)
		}
	}
	if got := Redact("OSAURUS-1A2B-3C4D-5E6F-7A8B"); strings.Contains(got, "1A2B") {
		t.Errorf("a recovery code shows as %s", got)
	}
	for _, text := range []string{"", "plain words", `{"prompt":"the bearer of news"}`, `{"nonces":"kept"}`, "osk-vault", `{"model":"echo"}`} {
		if got := Redact(text); got != text && !strings.Contains(text, "bearer") {
			t.Errorf("%s became %s", text, got)
		}
	}
}

func TestLinesAreRedacted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, Options{})
	if err := l.Append("e", slog.String("body", `{"apiKey":"`+hidden+`"}`), slog.Any("group", slog.GroupValue(slog.String("x", "Bearer "+hidden)))); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(raw), hidden) {
		t.Errorf("%s, %v", raw, err)
	}
	if _, err := Verify(path, key, l.Head()); err != nil {
		t.Error(err)
	}
}

// FuzzRedact: redacting is settled after one pass, and a token never passes.
func FuzzRedact(f *testing.F) {
	f.Add("Bearer x", `{"token":"y"}`)
	f.Fuzz(func(t *testing.T, before, after string) {
		once := Redact(before + " osk-v1." + hidden + ".c " + after)
		if strings.Contains(once, hidden) {
			t.Errorf("%q shows the token: %q", before, once)
		}
		if twice := Redact(once); twice != once {
			t.Errorf("%q becomes %q", once, twice)
		}
	})
}
