package accesskey

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"osaurus/engine/address"
	"osaurus/engine/identity"
)

// Config configures Open. Vault is required.
type Config struct {
	Vault identity.Vault
	// TemporaryPath is identity/temporary-keys.json; "" refuses session-only
	// keys.
	TemporaryPath string
	Now           func() time.Time                       // nil means time.Now
	Rand          io.Reader                              // nil means crypto/rand
	Log           func(event string, attrs ...slog.Attr) // nil drops events
}

// Access is what a valid key allows its bearer to claim.
type Access struct {
	Issuer       address.Address
	Audience     address.Address
	Nonce        string
	MasterScoped bool
	ExpiresAt    int64 // Unix seconds; 0 means never
}

// Keys validates, mints and revokes. Validate takes no lock; everything that
// changes state is serialised and durable before it returns.
type Keys struct {
	c     Config
	snap  atomic.Pointer[snapshot]
	known atomic.Bool // a key was minted, or a whitelist has an entry
	cache cache

	mu          sync.Mutex
	metadata    []Metadata
	state       revocations
	white       whitelist
	temporary   temporaryKeys
	observers   []func(Revocation)
	unreadable  error // revocations or metadata could not be read
	noTemporary error // why session-only keys are refused
}

// Open reads the stores. Revocations that cannot be read leave a working
// Keys that refuses every key; Problem tells why.
func Open(ctx context.Context, c Config) (*Keys, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	k := &Keys{c: c}
	k.snap.Store(&snapshot{unreadable: true})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loadLocked(ctx)
	k.publishLocked(address.Address{}, nil)
	if k.unreadable == nil {
		k.sweepTemporaryLocked(ctx)
	}
	return k, nil
}

// Problem returns why keys are refused or session-only keys cannot be minted;
// nil when all is well.
func (k *Keys) Problem() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unreadable != nil {
		return k.unreadable
	}
	return k.noTemporary
}

// SetAudiences says who this host is: the master and the agents with an
// address. Keys for anybody else are refused from the next request on.
func (k *Keys) SetAudiences(master address.Address, agents []address.Address) {
	set := make(map[address.Address]bool, len(agents))
	for _, a := range agents {
		if !a.IsZero() {
			set[a] = true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.publishLocked(master, set)
}

// publishLocked makes the present state the one that decides.
func (k *Keys) publishLocked(master address.Address, agents map[address.Address]bool) {
	s := &snapshot{
		master: master, agents: agents,
		trustAll: map[address.Address]bool{}, trust: map[address.Address]map[address.Address]bool{},
		revoked: maps.Clone(k.state.revoked), thresholds: maps.Clone(k.state.thresholds),
		notBefore: k.state.notBefore, unreadable: k.unreadable != nil,
	}
	for _, e := range k.white {
		if e.Audience.IsZero() {
			s.trustAll[e.Issuer] = true
			continue
		}
		if s.trust[e.Audience] == nil {
			s.trust[e.Audience] = map[address.Address]bool{}
		}
		s.trust[e.Audience][e.Issuer] = true
	}
	k.known.Store(k.unreadable != nil || len(k.metadata) > 0 || len(k.white) > 0)
	k.snap.Store(s)
}

func (k *Keys) republishLocked() {
	s := k.snap.Load()
	k.publishLocked(s.master, s.agents)
}

// Configured reports whether any key was ever minted or issuer trusted; while
// false the gate says that there are no keys.
func (k *Keys) Configured() bool { return k.known.Load() }

// Validate checks a bearer token. A verified token costs one SHA-256; its
// policy runs again only when something changed, its signature never. Errors
// are fault codes in the order of PROTOCOL.md section 2.
func (k *Keys) Validate(bearer string) (Access, error) {
	if len(bearer) > MaxToken {
		_, err := parse(bearer)
		return Access{}, err
	}
	// The digest only reads, so the string needs no copy.
	digest := sha256.Sum256(unsafe.Slice(unsafe.StringData(bearer), len(bearer))) //nolint:gosec // see above
	s := k.snap.Load()
	if v := k.cache.find(&digest); v != nil {
		return k.hit(v, s)
	}
	t, err := parse(bearer)
	if err != nil {
		return Access{}, err
	}
	if err := s.admits(&t.claims); err != nil {
		return Access{}, err
	}
	if err := t.verify(); err != nil {
		return Access{}, err
	}
	if err := s.refuses(&t.claims); err != nil {
		return Access{}, err
	}
	if err := t.claims.expired(k.c.Now().Unix()); err != nil {
		return Access{}, err
	}
	v := &verified{sum: digest, claims: t.claims, access: accessOf(&t.claims, s), under: s}
	k.cache.put(v)
	return v.access, nil
}

// Cached reports whether a token was verified before, without judging it. The
// 401 limiter lets such requests through while a source is blocked.
func (k *Keys) Cached(bearer string) bool {
	digest := sha256.Sum256([]byte(bearer))
	return k.cache.find(&digest) != nil
}

func (k *Keys) hit(v *verified, s *snapshot) (Access, error) {
	if v.under != s {
		if err := s.admits(&v.claims); err != nil {
			return Access{}, err
		}
		if err := s.refuses(&v.claims); err != nil {
			return Access{}, err
		}
		fresh := *v
		fresh.under, fresh.access = s, accessOf(&v.claims, s)
		v = &fresh
		k.cache.put(v)
	}
	if err := v.claims.expired(k.c.Now().Unix()); err != nil {
		return Access{}, err
	}
	return v.access, nil
}

func accessOf(c *Claims, s *snapshot) Access {
	a := Access{Issuer: c.Issuer, Audience: c.Audience, Nonce: c.Nonce, MasterScoped: c.Audience == s.master}
	if c.Expires != nil {
		a.ExpiresAt = *c.Expires
	}
	return a
}

// List returns the metadata of every key, newest first.
func (k *Keys) List() []Metadata {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := slices.Clone(k.metadata)
	slices.SortStableFunc(list, func(a, b Metadata) int { return cmp.Compare(b.Counter, a.Counter) })
	return list
}

func (k *Keys) log(event string, m Metadata) {
	k.c.Log(event, slog.String("keyId", m.ID), slog.String("audience", m.Audience.String()), slog.String("label", m.Label), slog.String("expiration", string(m.Expiration)))
}

var errNoStore = fmt.Errorf("accesskey: the key store could not be read, so nothing is changed")
