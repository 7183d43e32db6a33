package identity

// Labels of the key derivations, PROTOCOL.md section 2.
const (
	labelAgentV1 = "osaurus-agent-v1"
	labelAgentV2 = "osaurus-agent-v2"
	labelPairing = "osaurus-pair-v1"
)

// Where the master stands in the keystore, PROTOCOL.md section 3.
const (
	VaultService = "com.osaurus.account"
	VaultAccount = "master-key"
)

// PhraseWords is the length of a recovery phrase: 256 bits of entropy and 8
// of checksum in words of 11 bits (BIP-39).
const PhraseWords = 24

// The recovery code, PROTOCOL.md section 5.
const (
	recoveryCodeName  = "OSAURUS"
	recoveryCodeBytes = 8
)

// deviceIDBytes is how much of SHA-256(key id) names a device.
const deviceIDBytes = 4

// Request tokens, PROTOCOL.md section 6.
const (
	requestHeader   = `{"alg":"es256k+apple-attest","typ":"osaurus-id","ver":5}`
	requestLifetime = 60 // seconds from iat to exp
	requestWindow   = 60 // seconds that clocks may differ, either way
)
