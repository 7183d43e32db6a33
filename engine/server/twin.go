package server

import (
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/secret"
)

// nonJSON stands in the request log for a body that cannot be redacted member
// by member.
const nonJSON = "<redacted: non-JSON body>"

// hiddenMembers are those of /pair-invite that open or identify something
// (PROTOCOL.md section 8).
var hiddenMembers = map[string]bool{
	"attestation": true, "wallet_signature": true, "sig": true, "signature": true, "nonce": true,
	"encPub": true, "enc_pub": true, "device_id": true, "apiKey": true, "sealedApiKey": true,
}

// twin is a body as the request log may keep it.
func twin(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	var v any
	if canonjson.Unmarshal(raw, &v) != nil {
		return nonJSON
	}
	text, err := canonjson.Marshal(hide(v))
	if err != nil {
		return nonJSON
	}
	return string(text)
}

func hide(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if hiddenMembers[name] {
				v[name] = secret.Redacted
			} else {
				v[name] = hide(member)
			}
		}
	case []any:
		for i := range v {
			v[i] = hide(v[i])
		}
	}
	return v
}
