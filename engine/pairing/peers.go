package pairing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/secret"
)

// PeerService is where the access keys of peers stand in the keystore, each
// under its agent's lower-case address.
const PeerService = "com.osaurus.peers"

// Peer is a paired agent on another host. Its key stands in the keystore.
type Peer struct {
	Address   address.Address `json:"address"` // pinned at pairing
	AgentID   string          `json:"agent_id"`
	Name      string          `json:"name"`
	BaseURL   string          `json:"base_url"` // where it was last seen
	PairedAt  int64           `json:"paired_at"`
	LastUsed  int64           `json:"last_used,omitempty"`
	Expires   int64           `json:"expires_at,omitempty"` // 0 means never
	Permanent bool            `json:"permanent,omitempty"`
	PQ        bool            `json:"pq,omitempty"` // a handshake without the post-quantum exchange is refused
}

// Peers is the list in identity/peers.json. It is safe for concurrent use.
type Peers struct {
	doc   atomicfile.Document
	vault identity.Vault
	now   func() time.Time

	mu     sync.Mutex
	list   []Peer
	loaded bool
}

type peerFile struct {
	Version int    `json:"version"`
	Peers   []Peer `json:"peers"`
}

// OpenPeers reads the list. One that cannot be read now stays as it is, is
// read again when it is needed, and until then there is no peer and nothing is
// written: whoever asks is told why.
func OpenPeers(doc atomicfile.Document, vault identity.Vault, now func() time.Time) *Peers {
	if now == nil {
		now = time.Now
	}
	p := &Peers{doc: doc, vault: vault, now: now}
	_ = p.loadLocked() // see above
	return p
}

func (p *Peers) loadLocked() error {
	if p.loaded {
		return nil
	}
	err := p.doc.Read(func(raw []byte) error {
		var f peerFile
		if json.Unmarshal(raw, &f) != nil || f.Version != 1 {
			return fault.New(fault.StateCorrupt, errors.New("the list of peers does not parse"))
		}
		p.list = f.Peers
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p.loaded = true
	return nil
}

// Room reports whether Add would have room for an address, before anything is
// asked of its host.
func (p *Peers) Room(a address.Address) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.loadLocked(); err != nil {
		return err
	}
	if len(p.list) >= MaxPeers && p.indexLocked(a) < 0 {
		return errFull
	}
	return nil
}

var errFull = fault.WithText(fault.Usage, fmt.Sprintf("a host keeps at most %d peers; forget some first", MaxPeers))

// Add stores a pairing: the key first, then the record, so that a record
// always has its key. A peer with the same address is replaced.
func (p *Peers) Add(ctx context.Context, t Target, name string, got Paired) (Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.loadLocked(); err != nil {
		return Peer{}, err
	}
	next := slices.DeleteFunc(slices.Clone(p.list), func(x Peer) bool { return x.Address == got.Address })
	if len(next) >= MaxPeers {
		return Peer{}, errFull
	}
	if err := p.vault.Put(ctx, PeerService, got.Address.Lower(), got.Key); err != nil {
		return Peer{}, fmt.Errorf("storing the access key: %w", err)
	}
	peer := Peer{Address: got.Address, AgentID: t.AgentID, Name: PeerName(name), BaseURL: t.BaseURL.String(), PairedAt: p.now().Unix(), Expires: got.Expires, Permanent: got.Permanent, PQ: got.PQ || t.PQ}
	return peer, p.saveLocked(append(next, peer))
}

// PeerName makes an untrusted name printable and short.
func PeerName(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, ""))), " ")
	if utf8.RuneCountInString(s) > MaxPeerName {
		s = string([]rune(s)[:MaxPeerName])
	}
	return s
}

// List returns the peers, last paired first.
func (p *Peers) List() ([]Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.loadLocked(); err != nil {
		return nil, err
	}
	list := slices.Clone(p.list)
	slices.SortStableFunc(list, func(a, b Peer) int { return int(b.PairedAt - a.PairedAt) })
	return list, nil
}

// Find returns the peer with this address or name, in any case. Two peers of
// one name are told apart by address only.
func (p *Peers) Find(nameOrAddress string) (Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.loadLocked(); err != nil {
		return Peer{}, err
	}
	if a, err := address.Parse(nameOrAddress); err == nil {
		if i := p.indexLocked(a); i >= 0 {
			return p.list[i], nil
		}
	}
	var found []Peer
	for _, x := range p.list {
		if strings.EqualFold(x.Name, nameOrAddress) {
			found = append(found, x)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Peer{}, fault.WithText(fault.Usage, "no paired peer has this name or address")
	}
	return Peer{}, fault.WithText(fault.Usage, "several peers have this name; use the address")
}

// Key returns a peer's access key; the caller destroys it.
func (p *Peers) Key(ctx context.Context, a address.Address) (secret.Bytes, error) {
	return p.vault.Get(ctx, PeerService, a.Lower())
}

// Forget removes the record, then the key.
func (p *Peers) Forget(ctx context.Context, a address.Address) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.loadLocked(); err != nil {
		return err
	}
	if i := p.indexLocked(a); i >= 0 {
		if err := p.saveLocked(slices.Delete(slices.Clone(p.list), i, i+1)); err != nil {
			return err
		}
	}
	return p.vault.Delete(ctx, PeerService, a.Lower())
}

// Rename gives a peer another name.
func (p *Peers) Rename(a address.Address, name string) error {
	return p.edit(a, func(x *Peer) { x.Name = PeerName(name) })
}

// usedEvery is how exactly Used keeps the time, in seconds: calls do not wait
// for a disk each time.
const usedEvery = 60

// Used notes where a peer answered, and when to the minute.
func (p *Peers) Used(a address.Address, baseURL string) error {
	if known, err := p.Find(a.String()); err == nil && known.BaseURL == baseURL {
		if since := p.now().Unix() - known.LastUsed; 0 <= since && since < usedEvery {
			return nil
		}
	}
	return p.edit(a, func(x *Peer) { x.LastUsed, x.BaseURL = p.now().Unix(), baseURL })
}

// PinHybrid notes that a peer's channel has the post-quantum exchange. Only
// pairing anew takes that back (decisions C20).
func (p *Peers) PinHybrid(a address.Address) error {
	if known, err := p.Find(a.String()); err != nil || known.PQ {
		return err
	}
	return p.edit(a, func(x *Peer) { x.PQ = true })
}

func (p *Peers) edit(a address.Address, change func(*Peer)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.loadLocked(); err != nil {
		return err
	}
	i := p.indexLocked(a)
	if i < 0 {
		return fault.WithText(fault.Usage, "no paired peer has this address")
	}
	next := slices.Clone(p.list)
	change(&next[i])
	return p.saveLocked(next)
}

func (p *Peers) indexLocked(a address.Address) int {
	return slices.IndexFunc(p.list, func(x Peer) bool { return x.Address == a })
}

func (p *Peers) saveLocked(next []Peer) error {
	raw, err := json.MarshalIndent(peerFile{1, next}, "", "  ")
	if err != nil {
		return err
	}
	if err := p.doc.Write(append(raw, '\n')); err != nil {
		return err
	}
	p.list = next
	return nil
}
