// Package signature is the one place that signs: recoverable ECDSA over
// secp256k1 on domain-separated Keccak-256 digests (EIP-191 shape, RFC 6979
// nonces, low-S per BIP-62). Nothing here signs a hash the caller supplies.
package signature

import (
	"strconv"

	"osaurus/engine/address"
)

// Domain separates the meanings a signature can have. The zero value is
// invalid; the constants are all there are.
type Domain uint8

// The domains of the protocol. The comment names who signs over what.
const (
	invalidDomain   Domain = iota
	SignedMessage          // master or agent: request-token payload
	SignedAccess           // master or agent: osk-v1 payload
	SignedPairing          // connector's pairing key: "<nonce>:<encPub>"
	PairingServer          // agent: osaurus-pairing-server-v1 text
	SignedInvite           // agent: osaurus-agent-invite-v1 text
	SecureChannel          // agent: handshake transcript
	EthereumMessage        // master or agent: EIP-191 personal message
	domainCount
)

var prefixes = [domainCount]string{
	SignedMessage:   "Osaurus Signed Message",
	SignedAccess:    "Osaurus Signed Access",
	SignedPairing:   "Osaurus Signed Pairing",
	PairingServer:   "Osaurus Signed Pairing Server",
	SignedInvite:    "Osaurus Signed Invite",
	SecureChannel:   "Osaurus Secure Channel",
	EthereumMessage: "Ethereum Signed Message",
}

// String returns the prefix as it is hashed.
func (d Domain) String() string {
	if d == invalidDomain || d >= domainCount {
		return "invalid domain"
	}
	return prefixes[d]
}

// Digest is a hash that only Domain.Digest can make; signing takes nothing
// else. The zero Digest is refused.
type Digest struct {
	sum    [32]byte
	domain Domain
}

// Digest returns Keccak-256(0x19 ‖ prefix ‖ ":\n" ‖ decimal length of payload
// in bytes ‖ payload). It panics on an invalid domain.
func (d Domain) Digest(payload []byte) Digest {
	if d == invalidDomain || d >= domainCount {
		panic("signature: invalid domain")
	}
	head := make([]byte, 0, 64)
	head = append(head, 0x19)
	head = append(head, prefixes[d]...)
	head = append(head, ":\n"...)
	head = strconv.AppendInt(head, int64(len(payload)), 10)
	return Digest{sum: address.Keccak256(head, payload), domain: d}
}

// Domain returns the domain the digest was made for.
func (d Digest) Domain() Domain { return d.domain }
