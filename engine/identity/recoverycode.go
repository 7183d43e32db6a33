package identity

import (
	"encoding/hex"
	"io"
	"strings"

	"osaurus/engine/secret"
)

// newRecoveryCode returns OSAURUS-XXXX-XXXX-XXXX-XXXX. It is a claim token for
// a server-side flow, shown once and never stored; it cannot restore the key.
func newRecoveryCode(rand io.Reader) (secret.Bytes, error) {
	raw, err := secret.Random(rand, recoveryCodeBytes)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer raw.Destroy()
	digits := strings.ToUpper(hex.EncodeToString(raw.Expose()))
	code := recoveryCodeName
	for ; digits != ""; digits = digits[4:] {
		code += "-" + digits[:4]
	}
	return secret.Take([]byte(code)), nil
}
