package eventlog

import (
	"regexp"
	"strings"

	"osaurus/engine/secret"
)

// secrets matches what must never be written, wherever it stands in a text:
// bearer tokens, and JSON members that carry keys, signatures, one-time
// nonces or sealed envelopes.
var secrets = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?i)Bearer\s+[A-Za-z0-9._~+/=-]+`), "Bearer " + secret.Redacted},
	{regexp.MustCompile(`osk-v[0-9]+\.[A-Za-z0-9._=-]+`), secret.Redacted},
	{regexp.MustCompile(`(?i)"(apiKey|api_key|sealedApiKey|signature|serverSignature|sig|nonce|encPub|enc_pub|enc|ct|wallet_signature|attestation|token|authorization|mnemonic|device_id)"\s*:\s*("(?:[^"\\]|\\.)*"?|\{[^}]*\}?)`), `"$1":"` + secret.Redacted + `"`},
	{regexp.MustCompile(`OSAURUS(-[0-9A-F]{4}){4}`), secret.Redacted},
}

// Redact replaces every secret it recognises in a text. It is the second
// layer: callers pass redacted twins in the first place.
func Redact(text string) string {
	if !suspicious(text) {
		return text
	}
	for _, s := range secrets {
		text = s.pattern.ReplaceAllString(text, s.with)
	}
	return text
}

// suspicious is a cheap look that every pattern above passes.
func suspicious(text string) bool {
	if strings.Contains(text, `"`) || strings.Contains(text, "osk-v") || strings.Contains(text, "OSAURUS-") {
		return true
	}
	for i := 0; i+len("bearer") <= len(text); i++ {
		if text[i]|0x20 == 'b' && strings.EqualFold(text[i:i+len("bearer")], "bearer") {
			return true
		}
	}
	return false
}
