// Package discovery describes agents on the local network as DNS-SD service
// instances (RFC 6763) and holds the ports that advertise and browse them.
// PROTOCOL.md beside this file is its specification.
package discovery

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"osaurus/engine/address"
)

// What the protocol fixes, PROTOCOL.md section 1.
const (
	ServiceType = "_osaurus._tcp"
	Domain      = "local."
	// MaxInstance bounds an instance name in bytes (RFC 6763 section 4.1.1).
	MaxInstance = 63
	// MaxDescription bounds the description in a TXT record in bytes.
	MaxDescription = 200
)

// What one browser keeps at most, so that a hostile network cannot fill it.
const (
	MaxInstances = 256
	MaxHosts     = 256
	MaxAddresses = 16 // of one host
)

// Grace is how long an instance that said goodbye, or whose record ran out, is
// still there for those who look, PROTOCOL.md section 3.
const Grace = 12 * time.Second

// Instance is one advertised agent.
type Instance struct {
	AgentID     string          `json:"agent_id"` // UUID, upper case
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Address     address.Address `json:"address,omitzero"`
	PQ          bool            `json:"pq,omitempty"` // the channel has the post-quantum exchange
	Host        string          `json:"host,omitempty"`
	Port        int             `json:"port"`
	IPs         []netip.Addr    `json:"ips,omitempty"` // IPv4 first
	// Unverifiable instances claim the channel without an address to pin; they
	// are shown and refused.
	Unverifiable bool `json:"unverifiable,omitempty"`
}

// ServiceName returns the instance name: the agent's name cut on a character
// boundary, then @ and the UUID in upper case.
func (i Instance) ServiceName() string {
	suffix := "@" + strings.ToUpper(i.AgentID)
	return Cut(i.Name, MaxInstance-len(suffix)) + suffix
}

// BaseURL is where the instance answers: its first address, else its host.
func (i Instance) BaseURL() string {
	host := i.Host + ":" + strconv.Itoa(i.Port)
	if len(i.IPs) > 0 {
		host = netip.AddrPortFrom(i.IPs[0], uint16(i.Port)).String() //nolint:gosec // a port
	}
	return (&url.URL{Scheme: "http", Host: host}).String()
}

// Equal reports whether two descriptions say the same; the order of addresses
// says nothing.
func (i Instance) Equal(j Instance) bool {
	a, b := slices.Clone(i.IPs), slices.Clone(j.IPs)
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return i.AgentID == j.AgentID && i.Name == j.Name && i.Description == j.Description && i.Address == j.Address &&
		i.Host == j.Host && i.Port == j.Port && i.Unverifiable == j.Unverifiable && i.PQ == j.PQ && slices.Equal(a, b)
}

// SortAddresses puts IPv4 first and what needs a zone last, and leaves the
// rest in order.
func SortAddresses(ips []netip.Addr) {
	rank := func(a netip.Addr) int {
		switch {
		case a.Is4():
			return 0
		case a.Zone() == "":
			return 1
		}
		return 2
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return rank(a) - rank(b) })
}

// Cut returns the longest prefix of s of at most n bytes that ends between
// characters.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:max(n, 0)]
}

// TXT returns the instance's TXT record.
func (i Instance) TXT() map[string]string {
	txt := map[string]string{"id": strings.ToUpper(i.AgentID), "name": Cut(i.Name, MaxDescription)}
	if i.Description != "" {
		txt["description"] = Cut(i.Description, MaxDescription)
	}
	if !i.Address.IsZero() {
		txt["address"], txt["osc"] = i.Address.String(), "1"
		if i.PQ {
			txt["pq"] = "1"
		}
	}
	return txt
}

// ParseTXT reads what a host advertised. Everything in it is untrusted text.
// It reports false for a record that names no agent.
func ParseTXT(txt map[string]string) (Instance, bool) {
	id, err := uuid.Parse(txt["id"])
	if err != nil || len(txt["id"]) != 36 {
		return Instance{}, false
	}
	i := Instance{AgentID: strings.ToUpper(id.String()), Name: printable(txt["name"]), Description: printable(txt["description"])}
	if a, err := address.Parse(txt["address"]); err == nil {
		i.Address = a
	}
	i.PQ = txt["pq"] == "1" && !i.Address.IsZero()
	i.Unverifiable = txt["osc"] == "1" && i.Address.IsZero()
	return i, true
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
	return Cut(s, MaxDescription)
}

// Change is what has to be done to one instance.
type Change uint8

// The changes, PROTOCOL.md section 2.
const (
	None Change = iota
	Publish
	UpdateTXT
)

// Compare says how to get from what was requested before to what is wanted
// now. It compares requested names, because a responder may have renamed.
func Compare(before *Instance, now Instance) Change {
	switch {
	case before == nil, before.ServiceName() != now.ServiceName(), before.Port != now.Port:
		return Publish
	case !equalTXT(before.TXT(), now.TXT()):
		return UpdateTXT
	}
	return None
}

func equalTXT(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// Advertiser publishes the agents of this host.
type Advertiser interface {
	// Publish makes the advertised set equal to want: new and renamed
	// instances are published, changed records updated in place, the rest
	// withdrawn with a goodbye.
	Publish(ctx context.Context, want []Instance) error
	// Close withdraws everything.
	Close() error
}

// Event is an instance that was found, changed or lost.
type Event struct {
	Lost     bool     `json:"lost,omitempty"`
	Instance Instance `json:"instance"`
}

// Browser finds agents on the local network.
type Browser interface {
	// Browse calls f for every event until ctx ends.
	Browse(ctx context.Context, f func(Event)) error
}
