// Package wire is the frames of the relay tunnel: JSON text messages in both
// directions over one WebSocket (PROTOCOL.md of engine/relay, sections 2 and
// 3). Frames are checked as a whole when they are parsed.
package wire

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"osaurus/engine/address"
	"osaurus/engine/signature"
)

// Type is what a frame is.
type Type string

// Frames of the client, the host that has agents.
const (
	Auth             Type = "auth"
	RequestChallenge Type = "request_challenge"
	AddAgent         Type = "add_agent"
	RemoveAgent      Type = "remove_agent"
	Pong             Type = "pong"
	Response         Type = "response"
	StreamStart      Type = "stream_start"
	StreamChunk      Type = "stream_chunk"
	StreamEnd        Type = "stream_end"
)

// Frames of the relay.
const (
	Challenge    Type = "challenge"
	AuthOK       Type = "auth_ok"
	AuthError    Type = "auth_error"
	AgentAdded   Type = "agent_added"
	AgentRemoved Type = "agent_removed"
	Ping         Type = "ping"
	Request      Type = "request"
	Cancel       Type = "cancel"
	Error        Type = "error"
)

// The words of an error frame, of an auth_error and of a removal.
const (
	InvalidJSON       = "invalid_json"
	ExpectedAuth      = "expected_auth_frame"
	InvalidNonce      = "invalid_nonce"
	NoAgents          = "no_agents"
	TooManyAgents     = "too_many_agents"
	SignatureFailed   = "signature_verification_failed"
	AuthTimeout       = "auth_timeout"
	InternalError     = "internal_error"
	MaxAgentsReached  = "max_agents_reached"
	InvalidSignature  = "invalid_signature"
	AlreadyRegistered = "address_already_registered"
	RateLimited       = "rate_limited"
	Restarting        = "relay_restarting"
	Superseded        = "superseded"
)

// Limits of frames, in characters as JavaScript counts them (UTF-16 units)
// where nothing else is said.
const (
	MaxID        = 64
	MaxNonce     = 128
	MaxHeaders   = 128
	MaxName      = 256
	MaxValue     = 16_384
	MaxBody      = 10_485_760
	MaxChunk     = 1_048_576
	MaxBodyBytes = 10 << 20 // of a request, in bytes

	// MaxFrame bounds a message in bytes: a body of control characters is six
	// bytes of JSON each.
	MaxFrame = 6*MaxBody + 4<<20

	// MaxAgents are carried by one tunnel.
	MaxAgents = 50
)

// Agent is one address of an auth frame and its proof, or of an auth_ok and
// its public URL.
type Agent struct {
	Address   string `json:"address"`
	Signature string `json:"signature,omitzero"`
	URL       string `json:"url,omitzero"`
	Reason    string `json:"reason,omitzero"` // why it was rejected, by the older relay
}

// Frame is any frame; Type says which fields it has.
type Frame struct {
	Type      Type              `json:"type"`
	Address   string            `json:"address,omitzero"`
	Agents    []Agent           `json:"agents,omitzero"`
	Rejected  []Agent           `json:"rejected,omitzero"`
	Nonce     string            `json:"nonce,omitzero"`
	Signature string            `json:"signature,omitzero"`
	Timestamp int64             `json:"timestamp,omitzero"` // Unix seconds
	URL       string            `json:"url,omitzero"`
	Region    string            `json:"region,omitzero"`
	Reason    string            `json:"reason,omitzero"`
	Error     string            `json:"error,omitzero"`
	TS        *int64            `json:"ts,omitzero"` // of ping and pong
	ID        string            `json:"id,omitzero"`
	Method    string            `json:"method,omitzero"`
	Path      string            `json:"path,omitzero"`
	Status    int               `json:"status,omitzero"`
	Headers   map[string]string `json:"headers,omitzero"`
	Body      *string           `json:"body,omitzero"`
	Encoding  string            `json:"bodyEncoding,omitzero"` // base64, in requests of some relays
	Data      string            `json:"data,omitzero"`
}

// Errors of parsing. They never contain the frame.
var (
	ErrJSON  = errors.New("relay: not JSON, or not an object")
	ErrFrame = errors.New("relay: a frame that breaks the protocol")
)

// Parse reads a frame of either side and checks its limits. Of a frame that is
// JSON and not right, the error is ErrFrame and the ID may be set.
func Parse(raw []byte) (Frame, error) {
	var f Frame
	if !utf8.Valid(raw) {
		return Frame{}, ErrJSON
	}
	if json.Unmarshal(raw, &f) != nil {
		return salvage(raw)
	}
	if !f.valid() || f.Type == Request && (f.Method == "" || f.Path == "") && !texts(raw, "method", "path") {
		return Frame{Type: f.Type, ID: f.ID}, ErrFrame
	}
	return f, nil
}

// texts reports whether all of these fields are there, empty or not.
func texts(raw []byte, names ...string) bool {
	var fields map[string]jsontext.Value
	if json.Unmarshal(raw, &fields) != nil {
		return false
	}
	return !slices.ContainsFunc(names, func(name string) bool { return fields[name].Kind() != '"' })
}

// salvage takes the id out of a frame that does not parse, for the request it
// would have answered. A ping is one whatever its time is: the answer to it has
// our own then.
func salvage(raw []byte) (Frame, error) {
	var any map[string]jsontext.Value
	if json.Unmarshal(raw, &any) != nil {
		return Frame{}, ErrJSON
	}
	var f Frame
	_ = json.Unmarshal(any["type"], &f.Type) // it stays empty
	if f.Type == Ping {
		return f, nil
	}
	_ = json.Unmarshal(any["id"], &f.ID)
	if len(f.ID) > MaxID {
		f.ID = ""
	}
	return f, ErrFrame
}

func (f *Frame) valid() bool {
	switch f.Type {
	case Response:
		return f.validID() && f.Status != 0 && validHeaders(f.Headers) && (f.Body == nil || within(*f.Body, MaxBody))
	case StreamStart:
		return f.validID() && f.Status != 0 && validHeaders(f.Headers)
	case StreamChunk:
		return f.validID() && within(f.Data, MaxChunk)
	case StreamEnd:
		return f.validID()
	case Cancel:
		return f.ID != ""
	case Request: // the limits are those of frames to the relay
		return f.ID != "" && f.Headers != nil
	case Auth:
		return validNonce(f.Nonce) && len(f.Agents) <= 1<<16
	case AddAgent:
		return validNonce(f.Nonce) && f.Address != ""
	case Challenge:
		return validNonce(f.Nonce) && f.Nonce != ""
	case RemoveAgent, AgentAdded, AgentRemoved:
		return f.Address != ""
	case AuthError, Error:
		return f.Error != ""
	case RequestChallenge, Pong, Ping, AuthOK:
		return true
	}
	return f.Type != "" // unknown ones are passed over
}

func (f *Frame) validID() bool     { return f.ID != "" && within(f.ID, MaxID) }
func validNonce(nonce string) bool { return within(nonce, MaxNonce) }

func validHeaders(h map[string]string) bool {
	if h == nil || len(h) > MaxHeaders {
		return false
	}
	for name, value := range h {
		if !within(name, MaxName) || !within(value, MaxValue) {
			return false
		}
	}
	return true
}

// within reports whether s has at most so many characters. There are never more
// than bytes, so most need not be counted.
func within(s string, most int) bool { return len(s) <= most || Length(s) <= most }

// Length counts the characters of s as JavaScript does. An invalid byte is one:
// it is sent as U+FFFD.
func Length(s string) int {
	n := 0
	for _, r := range s {
		n += max(1, utf16.RuneLen(r))
	}
	return n
}

// Text is what an agent signs to be carried by a tunnel: the address as it
// stands in the frame, the nonce of the challenge, and the time.
func Text(addr, nonce string, timestamp int64) []byte {
	return []byte("osaurus-tunnel:" + addr + ":" + nonce + ":" + strconv.FormatInt(timestamp, 10))
}

// TextDigest is Text as an Ethereum personal message (EIP-191).
func TextDigest(addr, nonce string, timestamp int64) signature.Digest {
	return signature.EthereumMessage.Digest(Text(addr, nonce, timestamp))
}

var (
	addressForm   = regexp.MustCompile(`^0x[0-9a-fA-F]{40}$`)
	signatureForm = regexp.MustCompile(`^0x[0-9a-fA-F]{130}$`)
)

// Verify checks the proof of one agent against the text with its address as
// it was sent, in any case, and returns the address. v may be 0, 1, 27 or 28.
func Verify(a Agent, nonce string, timestamp int64) (address.Address, bool) {
	if !addressForm.MatchString(a.Address) || !signatureForm.MatchString(a.Signature) {
		return address.Address{}, false
	}
	addr, err := address.Parse(strings.ToLower(a.Address))
	if err != nil {
		return address.Address{}, false
	}
	sig, err := signature.Parse(a.Signature)
	return addr, err == nil && signature.Verify(TextDigest(a.Address, nonce, timestamp), sig, addr) == nil
}

// WellFormed reports whether an auth frame has the shape of one: anything else
// is no auth frame.
func (f *Frame) WellFormed() bool {
	for _, a := range f.Agents {
		if !addressForm.MatchString(a.Address) || !signatureForm.MatchString(a.Signature) {
			return false
		}
	}
	return f.Type == Auth && f.Agents != nil && f.Nonce != "" && f.Timestamp != 0
}

// WellFormedAddition is WellFormed for add_agent.
func (f *Frame) WellFormedAddition() bool {
	return f.Type == AddAgent && addressForm.MatchString(f.Address) && signatureForm.MatchString(f.Signature) && f.Nonce != "" && f.Timestamp != 0
}
