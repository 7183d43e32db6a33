package sandbox

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"sync"

	"osaurus/engine/internal/base64url"
	"osaurus/engine/sandbox/wire"
	"osaurus/engine/secret"
)

// TokenSize is the entropy of a token in bytes; its text has 43 characters of
// base64url.
const TokenSize = 32

// Errors of Register.
var (
	ErrNameTaken = errors.New("sandbox: the linux name belongs to another agent")
	errIdentity  = errors.New("sandbox: an agent needs an id, a linux name, a uid between 2000 and 59999 and a sandbox")
)

// Identity is who a token stands for.
type Identity struct {
	AgentID   string // UUID, upper case
	LinuxName string
	UID       uint32
	Sandbox   string // the sandbox the agent lives in
}

func (id Identity) valid() bool {
	return id.AgentID != "" && wire.ValidUser(id.LinuxName) && id.UID >= wire.MinUID && id.UID <= wire.MaxUID && wire.ValidSandbox(id.Sandbox)
}

// Outcome says what Register did.
type Outcome uint8

// The outcomes.
const (
	invalidOutcome Outcome = iota
	Created
	Existing
)

// Tokens knows which token stands for which agent. It keeps SHA-256 of each
// token and never the token itself, in memory alone. It is safe for
// concurrent use.
type Tokens struct {
	rand io.Reader

	mu     sync.Mutex
	epoch  uint64 // of the present boot; a token of another never resolves
	byHash map[[sha256.Size]byte]*entry
	byName map[string]*entry
}

type entry struct {
	Identity
	hash  [sha256.Size]byte
	epoch uint64
}

// NewTokens returns an empty store that takes its randomness from r, or from
// crypto/rand when r is nil.
func NewTokens(r io.Reader) *Tokens {
	return &Tokens{rand: r, byHash: map[[sha256.Size]byte]*entry{}, byName: map[string]*entry{}}
}

// Register mints a token for an agent and hands it to deliver, once, which
// must bring it to the guest and keep no copy. An agent that has a token keeps
// it and deliver is not called, unless its uid or sandbox changed: then the
// old one is revoked first. When deliver fails there is no token.
//
// Calls for one linux name must not overlap.
func (t *Tokens) Register(id Identity, deliver func(secret.Bytes) error) (Outcome, error) {
	if !id.valid() {
		return invalidOutcome, errIdentity
	}
	if done, err := t.existing(id); done != invalidOutcome || err != nil {
		return done, err
	}
	raw, err := secret.Random(t.rand, TokenSize)
	if err != nil {
		return invalidOutcome, err
	}
	defer raw.Destroy()
	token := secret.Take([]byte(base64url.Encode(raw.Expose())))
	defer token.Destroy()
	e := t.add(id, token)
	if err := deliver(token); err != nil {
		t.drop(e)
		return invalidOutcome, err
	}
	return Created, nil
}

// existing looks for a token of id and revokes one that no longer fits.
func (t *Tokens) existing(id Identity) (Outcome, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byName[id.LinuxName]
	switch {
	case e == nil:
		return invalidOutcome, nil
	case e.AgentID != id.AgentID:
		return invalidOutcome, ErrNameTaken
	case e.Identity == id:
		return Existing, nil
	}
	t.dropLocked(e)
	return invalidOutcome, nil
}

func (t *Tokens) add(id Identity, token secret.Bytes) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &entry{Identity: id, hash: sha256.Sum256(token.Expose()), epoch: t.epoch}
	t.byHash[e.hash], t.byName[id.LinuxName] = e, e
	return e
}

func (t *Tokens) drop(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(e)
}

func (t *Tokens) dropLocked(e *entry) {
	delete(t.byHash, e.hash)
	if t.byName[e.LinuxName] == e {
		delete(t.byName, e.LinuxName)
	}
}

// Resolve returns whom a token stands for. The index is the token's hash, so
// nothing about a token shows in how long the search takes; the comparison of
// the hash found is constant-time as well.
func (t *Tokens) Resolve(token []byte) (Identity, bool) {
	hash := sha256.Sum256(token)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byHash[hash]
	if e == nil {
		e = &entry{epoch: t.epoch} // the same work; its hash is no token's
	}
	if subtle.ConstantTimeCompare(e.hash[:], hash[:]) != 1 || e.epoch != t.epoch || len(token) == 0 {
		return Identity{}, false
	}
	return e.Identity, true
}

// Revoke drops the token of a linux name. It reports whether there was one.
func (t *Tokens) Revoke(linuxName string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byName[linuxName]
	if e != nil {
		t.dropLocked(e)
	}
	return e != nil
}

// RevokeSandbox drops the tokens of every agent in a sandbox.
func (t *Tokens) RevokeSandbox(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.byName {
		if e.Sandbox == id {
			t.dropLocked(e)
		}
	}
}

// RevokeAll drops every token and begins a new epoch, so that one minted
// before resolves nevermore, wherever a reference to it was left.
func (t *Tokens) RevokeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch++
	clear(t.byHash)
	clear(t.byName)
}

// Len returns how many tokens resolve.
func (t *Tokens) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byHash)
}
