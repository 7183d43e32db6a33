package fault

import "net/http"

// Shape is the form of an error body; clients parse them differently
// (PROTOCOL: server error bodies E1 to E6).
type Shape uint8

// The shapes. E7 is E6 sent as an event after a stream began.
const (
	invalidShape Shape = iota
	E1                 // {"error":{"message","type":"authentication_error"}}
	E2                 // {"error":{"code","message","type"}}
	E3                 // {"error":"<code>","message":"<text>"}
	E4                 // {"error":"<fixed sentence>"}
	E5                 // text/plain
	E6                 // {"error":{"message","type"}}
	Local              // never crosses the wire as itself: 500 with an id
)

// Code is one of a closed, append-only set of outcomes. A Code is an error:
// errors.Is(err, fault.SecureReplay) finds it anywhere in a chain.
type Code uint16

// Outcomes. The table below gives each its wire name, status and text.
const (
	invalidCode Code = iota
	Internal

	// Local ports: keystore, files, single instance.
	KeyNotFound     // the keystore answered: no such item
	KeystoreLocked  // the keystore cannot be read without the owner
	KeystoreCorrupt // the keystore's own data does not verify
	KeystoreDenied  // the owner or the system refused
	StateCorrupt    // a file of ours does not parse or verify
	Exists          // refusing to replace what is there
	Usage           // a caller's argument is wrong
	NeedsConfirmation
	Unsupported

	// Identity.
	NoMaster
	MasterExists
	InvalidPhrase
	ForeignPhrase
	RequestToken

	// Gate (E1, E2).
	NoAccessKeys
	TokenFormat
	PayloadEncoding
	SignatureEncoding
	MalformedPayload
	SignatureRecovery
	IssuerMismatch
	AudienceMismatch
	IssuerNotListed
	AccessRevoked
	AccessExpired
	TooManyFailures
	AgentScopeGate
	PeerInferenceDisabled
	SecureChannelRequired

	// Secure Channel (E4 for the handshake, E2 for calls).
	HandshakeRequest
	HandshakeVersion
	HandshakeMalformed
	HandshakeFailed
	UnknownAgentAddress
	HostIdentityUnavailable
	SecureSessionUnknown
	SecureReplay
	SecureMalformed
	SecureDecryptFailed

	// Pairing (E4).
	PairingRequest
	PairingEncryptionKey
	PairingSignature
	PairingChallenge
	PairingAgent
	PairingBusy
	PairingDenied
	PairingMint
	PairingFailed
	PairingLimited
	InvitePayload
	InviteVersion
	InviteExpired
	InviteAddress
	InviteUnknown
	InviteRedeemed
	InviteRevoked
	OwnerEncPub
	OwnerNonce
	OwnerSignature
	OwnerBuiltIn

	// Agents, tasks, dispatch, memory (E3).
	InvalidAgentID
	AgentNotFound
	BuiltInNotExposable
	AgentScopeDenied
	DuplicateRequest
	InvalidRequest
	TaskNotFound
	TaskLimit

	// OpenAI-compatible routes and streams (E6, E7).
	ServerOverloaded
	UnsupportedParameter
	NoModelProvider
	ProviderFailed
	AccessRevokedStream

	// Transport (E5, E6).
	NotFound
	BadRequest
	InvalidFormat
	PayloadTooLarge
	HeadersTooLarge

	// Storage.
	StorageLocked       // the key is not available now; nothing is written
	StorageKeyMissing   // the keystore has no key and encrypted data exists
	StorageBusy         // an operation over all stores runs
	StoreDamaged        // a store does not open with its key, or is no database
	StoreMissing        // a store on record is gone
	StorePlaintext      // a store on record as encrypted is plaintext
	StoreUnsafePath     // a link, a folder or another person's file
	StoreForwardVersion // written by a newer version

	// Sandboxes.
	SandboxUnavailable // what this machine lacks is in the text
	ArtifactDamaged    // what a sandbox boots from is not what was pinned
	codeCount
)

type row struct {
	name   string // the wire's "code" where the shape has one
	status int
	text   string
	kind   string // the wire's "type" where the shape has one
	shape  Shape
}

const (
	authentication = "authentication_error"
	permission     = "permission_error"
	channelError   = "secure_channel_error"
	invalidKey     = "Invalid access key: "
)

var table = [codeCount]row{
	Internal:          {"internal_error", http.StatusInternalServerError, "Internal error", "server_error", Local},
	KeyNotFound:       {"key_not_found", http.StatusInternalServerError, "no such item in the keystore", "", Local},
	KeystoreLocked:    {"keystore_locked", http.StatusServiceUnavailable, "the keystore is locked", "", Local},
	KeystoreCorrupt:   {"keystore_corrupt", http.StatusInternalServerError, "the keystore does not verify", "", Local},
	KeystoreDenied:    {"keystore_denied", http.StatusInternalServerError, "access to the keystore was refused", "", Local},
	StateCorrupt:      {"state_corrupt", http.StatusInternalServerError, "stored state is damaged", "", Local},
	Exists:            {"exists", http.StatusConflict, "refusing to replace what is there", "", Local},
	Usage:             {"usage", http.StatusBadRequest, "invalid argument", "", Local},
	NeedsConfirmation: {"needs_confirmation", http.StatusConflict, "needs confirmation", "", Local},
	Unsupported:       {"unsupported", http.StatusNotImplemented, "not supported on this system", "", Local},

	NoMaster:      {"no_master", http.StatusServiceUnavailable, "no identity has been created", "", Local},
	MasterExists:  {"master_exists", http.StatusConflict, "master already exists", "", Local},
	InvalidPhrase: {"invalid_phrase", http.StatusBadRequest, "invalid recovery phrase", "", Local},
	ForeignPhrase: {"foreign_phrase", http.StatusConflict, "the phrase belongs to another identity", "", Local},
	RequestToken:  {"request_token", http.StatusUnauthorized, "request token refused", "", Local},

	NoAccessKeys:          {"", http.StatusUnauthorized, "No access keys configured. Create one in Osaurus settings.", authentication, E1},
	TokenFormat:           {"", http.StatusUnauthorized, invalidKey + "Unrecognized token format", authentication, E1},
	PayloadEncoding:       {"", http.StatusUnauthorized, invalidKey + "Invalid payload encoding", authentication, E1},
	SignatureEncoding:     {"", http.StatusUnauthorized, invalidKey + "Invalid signature encoding", authentication, E1},
	MalformedPayload:      {"", http.StatusUnauthorized, invalidKey + "Malformed payload", authentication, E1},
	SignatureRecovery:     {"", http.StatusUnauthorized, invalidKey + "Signature recovery failed", authentication, E1},
	IssuerMismatch:        {"", http.StatusUnauthorized, invalidKey + "Issuer mismatch", authentication, E1},
	AudienceMismatch:      {"", http.StatusUnauthorized, invalidKey + "Audience mismatch", authentication, E1},
	IssuerNotListed:       {"", http.StatusUnauthorized, invalidKey + "Issuer not whitelisted", authentication, E1},
	AccessRevoked:         {"", http.StatusUnauthorized, "Access key has been revoked", authentication, E1},
	AccessExpired:         {"", http.StatusUnauthorized, "Access key has expired", authentication, E1},
	TooManyFailures:       {"", http.StatusTooManyRequests, "Too many failed attempts. Try again shortly.", authentication, E1},
	AgentScopeGate:        {"agent_scope_denied", http.StatusForbidden, "This access key is limited to its agent.", permission, E2},
	PeerInferenceDisabled: {"peer_inference_disabled", http.StatusForbidden, "Inference for paired peers is turned off on this host.", permission, E2},
	SecureChannelRequired: {"secure_channel_required", http.StatusUpgradeRequired, "This peer requires end-to-end encryption for agent requests. Upgrade Osaurus to a version that supports the secure channel.", "upgrade_required", E2},

	HandshakeRequest:        {"", http.StatusBadRequest, "Invalid handshake request", "", E4},
	HandshakeVersion:        {"", http.StatusBadRequest, "Unsupported secure channel version", "", E4},
	HandshakeMalformed:      {"", http.StatusBadRequest, "Malformed handshake", "", E4},
	HandshakeFailed:         {"", http.StatusInternalServerError, "Handshake failed", "", E4},
	UnknownAgentAddress:     {"", http.StatusNotFound, "Unknown agent address", "", E4},
	HostIdentityUnavailable: {"", http.StatusServiceUnavailable, "Host identity is unavailable right now", "", E4},
	SecureSessionUnknown:    {"secure_session_unknown", http.StatusUnauthorized, "Unknown or expired secure session", channelError, E2},
	SecureReplay:            {"secure_replay", http.StatusConflict, "Sequence number was already used", channelError, E2},
	SecureMalformed:         {"secure_malformed", http.StatusBadRequest, "Malformed secure envelope", channelError, E2},
	SecureDecryptFailed:     {"secure_decrypt_failed", http.StatusBadRequest, "Could not decrypt the secure envelope", channelError, E2},

	PairingRequest:       {"", http.StatusBadRequest, "Invalid pairing request", "", E4},
	PairingEncryptionKey: {"", http.StatusBadRequest, "Invalid encryption key", "", E4},
	PairingSignature:     {"", http.StatusUnauthorized, "Signature verification failed", "", E4},
	PairingChallenge:     {"", http.StatusUnauthorized, "Pairing challenge expired or invalid", "", E4},
	PairingAgent:         {"", http.StatusNotFound, "Agent not found or not available for pairing", "", E4},
	PairingBusy:          {"", http.StatusTooManyRequests, "Another pairing request is in progress. Try again shortly.", "", E4},
	PairingDenied:        {"", http.StatusForbidden, "Pairing denied", "", E4},
	PairingMint:          {"", http.StatusInternalServerError, "Failed to generate access key", "", E4},
	PairingFailed:        {"", http.StatusInternalServerError, "Pairing failed", "", E4},
	PairingLimited:       {"", http.StatusTooManyRequests, "Too many pairing attempts. Try again shortly.", "", E4},
	InvitePayload:        {"", http.StatusBadRequest, "Invalid invite payload", "", E4},
	InviteVersion:        {"", http.StatusBadRequest, "Unsupported invite version", "", E4},
	InviteExpired:        {"", http.StatusGone, "Invite has expired", "", E4},
	InviteAddress:        {"", http.StatusNotFound, "Agent address not found on this server", "", E4},
	InviteUnknown:        {"", http.StatusUnauthorized, "Invite is not registered on this server", "", E4},
	InviteRedeemed:       {"", http.StatusConflict, "Invite has already been redeemed", "", E4},
	InviteRevoked:        {"", http.StatusForbidden, "Invite was revoked", "", E4},
	OwnerEncPub:          {"", http.StatusBadRequest, "encPub is required: a base64url X25519 public key (32 bytes)", "", E4},
	OwnerNonce:           {"", http.StatusUnauthorized, "Unknown or expired challenge nonce", "", E4},
	OwnerSignature:       {"", http.StatusUnauthorized, "Signature does not match this host's identity", "", E4},
	OwnerBuiltIn:         {"", http.StatusForbidden, "Built-in agents are not reachable from other devices", "", E4},

	InvalidAgentID:      {"invalid_agent_id", http.StatusBadRequest, "The agent id is neither a UUID nor an address.", "", E3},
	AgentNotFound:       {"agent_not_found", http.StatusNotFound, "No such agent on this host.", "", E3},
	BuiltInNotExposable: {"built_in_agent_not_exposable", http.StatusForbidden, "Built-in agents are not reachable from other devices.", "", E3},
	AgentScopeDenied:    {"agent_scope_denied", http.StatusForbidden, "This access key is limited to its agent.", "", E3},
	DuplicateRequest:    {"duplicate_request", http.StatusConflict, "A request with this idempotency key was already received.", "", E3},
	InvalidRequest:      {"invalid_request", http.StatusBadRequest, "The request is not valid.", "", E3},
	TaskNotFound:        {"task_not_found", http.StatusNotFound, "No such task.", "", E3},
	TaskLimit:           {"task_limit_reached", http.StatusTooManyRequests, "Too many tasks are running. Try again shortly.", "", E3},

	ServerOverloaded:     {"server_overloaded", http.StatusServiceUnavailable, "The server is busy. Try again shortly.", "server_overloaded", E6},
	UnsupportedParameter: {"unsupported_parameter", http.StatusBadRequest, "A parameter is not supported.", "invalid_request_error", E6},
	NoModelProvider:      {"no_model_provider", http.StatusServiceUnavailable, "No model provider is configured. Start one (for example Ollama) or run: osaurus provider use URL", "no_model_provider", E6},
	ProviderFailed:       {"provider_failed", http.StatusBadGateway, "The model provider failed.", "provider_error", E6},
	AccessRevokedStream:  {"access_revoked", http.StatusUnauthorized, "Access key has been revoked", authentication, E6},

	NotFound:        {"", http.StatusNotFound, "Not Found", "", E5},
	BadRequest:      {"", http.StatusBadRequest, "Bad Request", "", E5},
	InvalidFormat:   {"", http.StatusBadRequest, "Invalid request format", "", E5},
	PayloadTooLarge: {"", http.StatusRequestEntityTooLarge, "Request body too large", "payload_too_large", E6},
	HeadersTooLarge: {"", http.StatusRequestHeaderFieldsTooLarge, "Request header fields too large", "request_header_fields_too_large", E6},

	StorageLocked:       {"storage_locked", http.StatusServiceUnavailable, "the storage key is not available, so stored data stays closed", "", Local},
	StorageKeyMissing:   {"storage_key_missing", http.StatusServiceUnavailable, "the storage key is missing but encrypted data exists; no new key is made, to avoid losing it", "", Local},
	StorageBusy:         {"storage_busy", http.StatusServiceUnavailable, "stored data is being moved or encrypted; try again when that is done", "", Local},
	StoreDamaged:        {"store_corrupt", http.StatusInternalServerError, "a store is damaged", "", Local},
	StoreMissing:        {"store_missing", http.StatusInternalServerError, "a store on record is missing", "", Local},
	StorePlaintext:      {"store_unexpected_plaintext", http.StatusInternalServerError, "a store on record as encrypted is plaintext", "", Local},
	StoreUnsafePath:     {"store_unsafe_path", http.StatusInternalServerError, "a store's path is not a regular file of this user", "", Local},
	StoreForwardVersion: {"store_forward_version", http.StatusInternalServerError, "a store was written by a newer version", "", Local},

	SandboxUnavailable: {"sandbox_unavailable", http.StatusServiceUnavailable, "no sandbox can run on this machine", "", Local},
	ArtifactDamaged:    {"artifact_damaged", http.StatusInternalServerError, "what sandboxes boot from is not what was pinned", "", Local},
}

func (c Code) row() row {
	if c == invalidCode || c >= codeCount {
		return table[Internal]
	}
	return table[c]
}

// Name returns the code as the wire and the logs spell it; "" where the shape
// carries none.
func (c Code) Name() string { return c.row().name }

// Status returns the HTTP status.
func (c Code) Status() int { return c.row().status }

// Text returns the public text.
func (c Code) Text() string { return c.row().text }

// Type returns the wire's "type" field.
func (c Code) Type() string { return c.row().kind }

// Shape returns the form of the body.
func (c Code) Shape() Shape { return c.row().shape }

// Error returns the public text.
func (c Code) Error() string { return c.Text() }
