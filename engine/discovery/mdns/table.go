package mdns

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"osaurus/engine/discovery"
)

// Queries go out at once, then after 1, 2, 4… seconds, and every maxInterval in
// the end (RFC 6762 section 5.2). An instance that lacks a record is asked for
// it once, and once again after resolveRetry.
const (
	firstInterval = time.Second
	maxInterval   = time.Minute
	resolveRetry  = 2 * time.Second
	maxTTL        = 75 * time.Minute // RFC 6762 section 10; longer ones are cut
	// settle is how long a change waits for the rest of it: the addresses of
	// one host come in several messages.
	settle = 200 * time.Millisecond
)

const service = discovery.ServiceType + "." + discovery.Domain

// table turns mDNS messages into events. It does no I/O and keeps no clock.
type table struct {
	report    func(discovery.Event)
	instances map[string]*instance // by full name, lower case
	hosts     map[string][]netip.Addr
	interval  time.Duration
	asked     time.Time // the next general query
}

// instance is what is known of one service instance.
type instance struct {
	name    string // as it was sent
	expires time.Time
	txt     map[string]string // nil until it came
	host    string            // "" until SRV came
	port    int

	resolves int       // queries for what is missing
	resolve  time.Time // the next of them
	reported *discovery.Instance
	changed  time.Time // when it came to differ from what was reported; zero if it does not
}

func newTable(report func(discovery.Event)) *table {
	return &table{report: report, instances: map[string]*instance{}, hosts: map[string][]netip.Addr{}, interval: firstInterval}
}

// take learns from one answer.
func (t *table) take(msg *dns.Msg, iface *net.Interface, now time.Time) {
	records := slices.Concat(msg.Answer, msg.Extra)
	for _, rr := range records {
		if ptr, ok := rr.(*dns.PTR); ok && strings.EqualFold(ptr.Hdr.Name, service) {
			t.seen(ptr.Ptr, ptr.Hdr.Ttl, now)
		}
	}
	for _, rr := range records {
		i := t.instances[strings.ToLower(rr.Header().Name)]
		switch rr := rr.(type) {
		case *dns.SRV:
			if i != nil && rr.Hdr.Ttl > 0 {
				i.host, i.port = rr.Target, int(rr.Port)
			}
		case *dns.TXT:
			if i != nil && rr.Hdr.Ttl > 0 {
				i.txt = pairs(rr.Txt)
			}
		case *dns.A:
			t.address(rr.Hdr, rr.A, iface)
		case *dns.AAAA:
			t.address(rr.Hdr, rr.AAAA, iface)
		}
	}
	t.compare(now)
}

// seen notes a pointer to an instance; TTL 0 is its goodbye.
func (t *table) seen(name string, ttl uint32, now time.Time) {
	key := strings.ToLower(name)
	i := t.instances[key]
	if i == nil {
		if ttl == 0 || len(t.instances) >= discovery.MaxInstances || !strings.HasSuffix(key, "."+service) {
			return
		}
		i = &instance{name: name, resolve: now.Add(settle)}
		t.instances[key] = i
	}
	i.expires = now.Add(min(time.Duration(ttl)*time.Second, maxTTL))
}

// pairs reads a TXT record: the first of equal keys counts, keys are compared
// without case (RFC 6763 section 6.4).
func pairs(strs []string) map[string]string {
	m := map[string]string{}
	for _, s := range strs {
		key, value, _ := strings.Cut(s, "=")
		if key = strings.ToLower(key); key == "" {
			continue
		}
		if _, twice := m[key]; !twice {
			m[key] = unescape(value)
		}
	}
	return m
}

// unescape undoes the \DDD and \X of the DNS library's text form.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		digits := s[i+1 : min(i+4, len(s))]
		if len(digits) == 3 && strings.Trim(digits, "0123456789") == "" {
			b.WriteByte((digits[0]-'0')*100 + (digits[1]-'0')*10 + digits[2] - '0')
			i += 3
			continue
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}

// address notes where a host is. An address that only counts on one link is
// kept with the link it was heard on.
func (t *table) address(hdr dns.RR_Header, ip net.IP, iface *net.Interface) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return
	}
	if a = a.Unmap(); a.Is6() && a.IsLinkLocalUnicast() && iface != nil {
		a = a.WithZone(iface.Name)
	}
	key := strings.ToLower(hdr.Name)
	known, ok := t.hosts[key]
	if !ok && len(t.hosts) >= discovery.MaxHosts {
		return
	}
	at := slices.Index(known, a)
	switch {
	case hdr.Ttl == 0 && at >= 0:
		known = slices.Delete(known, at, at+1)
	case hdr.Ttl > 0 && at < 0 && len(known) < discovery.MaxAddresses && !a.IsUnspecified() && !a.IsMulticast():
		known = append(known, a)
	}
	t.hosts[key] = known
}

// compare marks every instance that is complete and not as it was reported.
func (t *table) compare(now time.Time) {
	for _, i := range t.instances {
		d, ok := t.describe(i)
		switch {
		case !ok || i.reported != nil && i.reported.Equal(d):
			i.changed = time.Time{}
		case i.changed.IsZero():
			i.changed = now
		}
	}
}

func (t *table) describe(i *instance) (discovery.Instance, bool) {
	ips := t.hosts[strings.ToLower(i.host)]
	if i.txt == nil || i.host == "" || len(ips) == 0 {
		return discovery.Instance{}, false
	}
	d, ok := discovery.ParseTXT(i.txt)
	d.Host, d.Port, d.IPs = strings.TrimSuffix(i.host, "."), i.port, slices.Clone(ips)
	discovery.SortAddresses(d.IPs)
	return d, ok && i.port != 0
}

// next is when tick has something to do.
func (t *table) next() time.Time {
	at := t.asked
	for _, i := range t.instances {
		if due := i.expires.Add(discovery.Grace); due.Before(at) {
			at = due
		}
		if i.reported == nil && i.changed.IsZero() && i.resolves < 2 && i.resolve.Before(at) {
			at = i.resolve
		}
		if due := i.changed.Add(settle); !i.changed.IsZero() && due.Before(at) {
			at = due
		}
	}
	return at
}

// tick reports what changed, drops what is gone and returns the queries that are due.
func (t *table) tick(now time.Time) []*dns.Msg {
	var queries []*dns.Msg
	for key, i := range t.instances {
		if !now.Before(i.expires.Add(discovery.Grace)) {
			delete(t.instances, key)
			if i.reported != nil {
				t.report(discovery.Event{Lost: true, Instance: *i.reported})
			}
			continue
		}
		if !i.changed.IsZero() && !now.Before(i.changed.Add(settle)) {
			if d, ok := t.describe(i); ok {
				i.reported = &d
				t.report(discovery.Event{Instance: d})
			}
			i.changed = time.Time{}
		}
		if i.reported == nil && i.changed.IsZero() && i.resolves < 2 && !now.Before(i.resolve) {
			i.resolves, i.resolve = i.resolves+1, now.Add(resolveRetry)
			queries = append(queries, t.missing(i))
		}
	}
	t.forgetHosts()
	if !now.Before(t.asked) {
		queries = append(queries, t.question(now))
		t.asked = now.Add(t.interval)
		t.interval = min(2*t.interval, maxInterval)
	}
	return queries
}

// question asks for all instances and names those it knows for a while yet,
// which need not answer (RFC 6762 section 7.1).
func (t *table) question(now time.Time) *dns.Msg {
	q := query(service, dns.TypePTR)
	for _, i := range t.instances {
		left := i.expires.Sub(now)
		if i.reported == nil || left < maxTTL/2 || len(q.Answer) >= 32 {
			continue
		}
		q.Answer = append(q.Answer, &dns.PTR{
			Hdr: dns.RR_Header{Name: service, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: uint32(left / time.Second)}, Ptr: i.name,
		})
	}
	return q
}

// missing asks for what an instance lacks.
func (t *table) missing(i *instance) *dns.Msg {
	q := query(i.name, dns.TypeSRV, dns.TypeTXT)
	if i.host != "" {
		q.Question = append(q.Question, query(i.host, dns.TypeA, dns.TypeAAAA).Question...)
	}
	return q
}

func query(name string, types ...uint16) *dns.Msg {
	q := new(dns.Msg)
	for _, t := range types {
		q.Question = append(q.Question, dns.Question{Name: name, Qtype: t, Qclass: dns.ClassINET})
	}
	return q
}

// forgetHosts drops addresses that no instance points to any more.
func (t *table) forgetHosts() {
	used := map[string]bool{}
	for _, i := range t.instances {
		used[strings.ToLower(i.host)] = true
	}
	for host := range t.hosts {
		if !used[host] {
			delete(t.hosts, host)
		}
	}
}
