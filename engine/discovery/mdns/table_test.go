package mdns

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"osaurus/engine/discovery"
)

const agentID = "11111111-1111-4111-8111-111111111111"

var (
	eth0 = &net.Interface{Name: "eth0"}
	eth1 = &net.Interface{Name: "eth1"}
	zero = time.Unix(1800000000, 0)
)

// records reads zone-file lines; $S is the service, $I the instance.
func records(t testing.TB, lines ...string) *dns.Msg {
	t.Helper()
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}}
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		msg.Answer = append(msg.Answer, rr)
	}
	return msg
}

const name = "Ada." + service

var (
	ptr  = service + " 4500 IN PTR " + name
	bye  = service + " 0 IN PTR " + name
	srv  = name + " 120 IN SRV 0 0 1337 host.local."
	txt  = name + ` 4500 IN TXT "id=` + agentID + `" "name=Ada" "NAME=second" "name=third"`
	a    = "host.local. 120 IN A 10.0.0.1"
	aaaa = "host.local. 120 IN AAAA fe80::1"
)

type harness struct {
	*table
	t   *testing.T
	now time.Time
	got []discovery.Event
}

func newHarness(t *testing.T) *harness {
	h := &harness{t: t, now: zero}
	h.table = newTable(func(e discovery.Event) { h.got = append(h.got, e) })
	return h
}

func (h *harness) hear(iface *net.Interface, lines ...string) {
	h.t.Helper()
	h.take(records(h.t, lines...), iface, h.now)
}

// pass lets time go by, tick after tick, and returns what was asked.
func (h *harness) pass(d time.Duration) (queries []*dns.Msg) {
	h.t.Helper()
	for end := h.now.Add(d); ; {
		next := h.next()
		if next.After(end) {
			h.now = end
			return queries
		}
		if next.After(h.now) {
			h.now = next
		}
		queries = append(queries, h.tick(h.now)...)
		if len(queries) > 1000 {
			h.t.Fatal("it asks without end")
		}
	}
}

func (h *harness) events(want ...string) {
	h.t.Helper()
	var got []string
	for _, e := range h.got {
		got = append(got, fmt.Sprintf("%v %s %s:%d %v", e.Lost, e.Instance.Name, e.Instance.Host, e.Instance.Port, e.Instance.IPs))
	}
	h.got = nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		h.t.Errorf("events %q, want %q", got, want)
	}
}

const found = "false Ada host.local:1337 [10.0.0.1]"

func TestFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.hear(eth0, ptr, srv, txt, a)
	h.events()
	h.pass(settle)
	h.events(found)
	h.hear(eth0, ptr, srv, txt, a) // once more
	h.hear(eth1, aaaa)
	h.hear(eth0, aaaa)
	h.pass(settle)
	h.events("false Ada host.local:1337 [10.0.0.1 fe80::1%eth1 fe80::1%eth0]")
	h.hear(eth0, "host.local. 0 IN A 10.0.0.1", "ADA."+service+" 120 IN SRV 0 0 1338 HOST.local.")
	h.pass(settle)
	h.events("false Ada HOST.local:1338 [fe80::1%eth1 fe80::1%eth0]")
}

// TestInAnyOrder: the records come one by one, in every order.
func TestInAnyOrder(t *testing.T) {
	t.Parallel()
	all := []string{srv, txt, a}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		h := newHarness(t)
		h.hear(eth0, ptr)
		for _, i := range order {
			h.events()
			h.hear(eth0, all[i])
		}
		h.pass(settle)
		h.events(found)
	}
}

func TestGrace(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.hear(eth0, ptr, srv, txt, a)
	h.pass(time.Second)
	h.events(found)
	h.hear(eth0, bye)
	h.pass(discovery.Grace - 1)
	h.events()
	h.hear(eth0, ptr) // back in time
	h.pass(time.Hour)
	h.events()
	h.hear(eth0, bye)
	h.pass(discovery.Grace)
	h.events("true Ada host.local:1337 [10.0.0.1]")
	if len(h.instances) != 0 || len(h.hosts) != 0 {
		t.Errorf("left are %d instances and %d hosts", len(h.instances), len(h.hosts))
	}
	h.hear(eth0, bye) // of nobody
	if len(h.instances) != 0 {
		t.Error("a goodbye made an instance")
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	for ttl, lives := range map[uint32]time.Duration{10: 10 * time.Second, 1 << 31: maxTTL} {
		h := newHarness(t)
		h.hear(eth0, fmt.Sprintf("%s %d IN PTR %s", service, ttl, name), srv, txt, a)
		h.pass(lives + discovery.Grace - 1)
		h.events(found)
		h.pass(1)
		h.events("true Ada host.local:1337 [10.0.0.1]")
	}
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for i, after := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		queries := h.pass(after * time.Second)
		if len(queries) != 1 || queries[0].Question[0].Name != service || queries[0].Question[0].Qtype != dns.TypePTR || len(queries[0].Answer) != 0 {
			t.Errorf("question %d, after %d s: %v", i, after, queries)
		}
	}
	h.hear(eth0, ptr, srv, txt, a)
	queries := h.pass(time.Minute)
	if len(queries) != 1 || len(queries[0].Answer) != 1 || queries[0].Answer[0].(*dns.PTR).Ptr != name {
		t.Errorf("what is known is not named: %v", queries)
	}
}

// TestOneResolveOneRetry: an instance without its records is asked for twice.
func TestOneResolveOneRetry(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.pass(0)
	h.hear(eth0, ptr)
	var asked []dns.Question
	for _, q := range h.pass(time.Hour) {
		if q.Question[0].Qtype != dns.TypePTR {
			asked = append(asked, q.Question...)
		}
	}
	if len(asked) != 4 || asked[0].Name != name || asked[0].Qtype != dns.TypeSRV || asked[1].Qtype != dns.TypeTXT {
		t.Errorf("asked %v", asked)
	}
	h = newHarness(t)
	h.pass(0)
	h.hear(eth0, ptr, srv, txt)
	if queries := h.pass(settle); len(queries) != 1 || len(queries[0].Question) != 4 || queries[0].Question[2].Name != "host.local." {
		t.Errorf("without an address it asks %v", queries)
	}
	h.hear(eth0, a)
	h.pass(settle)
	h.events(found)
}

func TestRecordsThatSayNothing(t *testing.T) {
	t.Parallel()
	for what, lines := range map[string][]string{
		"no agent":        {ptr, srv, name + ` 120 IN TXT "name=Ada"`, a},
		"empty record":    {ptr, srv, name + ` 120 IN TXT ""`, a},
		"bad id":          {ptr, srv, name + ` 120 IN TXT "id=../../etc"`, a},
		"port 0":          {ptr, name + " 120 IN SRV 0 0 0 host.local.", txt, a},
		"another service": {"_http._tcp.local. 120 IN PTR x._http._tcp.local.", "x._http._tcp.local. 120 IN SRV 0 0 1 host.local.", a},
		"foreign pointer": {service + " 120 IN PTR x._http._tcp.local.", srv, txt, a},
		"no pointer":      {srv, txt, a},
		"multicast":       {ptr, srv, txt, "host.local. 120 IN A 224.0.0.1"},
		"unspecified":     {ptr, srv, txt, "host.local. 120 IN A 0.0.0.0"},
	} {
		h := newHarness(t)
		h.hear(eth0, lines...)
		h.pass(time.Minute)
		if len(h.got) != 0 {
			t.Errorf("%s: %+v", what, h.got)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for n := range discovery.MaxInstances + 10 {
		h.hear(eth0, fmt.Sprintf("%s 120 IN PTR i%d.%s", service, n, service))
	}
	for n := range discovery.MaxHosts + 10 {
		h.hear(eth0, fmt.Sprintf("h%d.local. 120 IN A 10.1.0.1", n))
	}
	for n := range discovery.MaxAddresses + 10 {
		h.hear(eth0, fmt.Sprintf("h1.local. 120 IN A 10.2.0.%d", n))
	}
	if len(h.instances) != discovery.MaxInstances || len(h.hosts) != discovery.MaxHosts || len(h.hosts["h1.local."]) != discovery.MaxAddresses {
		t.Errorf("%d instances, %d hosts, %d addresses", len(h.instances), len(h.hosts), len(h.hosts["h1.local."]))
	}
}

func TestEscapes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`a\b`: "ab", `\\`: `\`, `\252x`: "\xfcx", `\`: `\`, `\1`: "1", `\195\188`: "ü", "": ""} {
		if got := unescape(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	for _, s := range []string{"", `\`, `a\065`, `"q"`, "ü\\"} {
		if got := unescape(escaped(map[string]string{"k": s})["k"]); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

// FuzzTake: no message makes the table panic, ask without end or grow.
func FuzzTake(f *testing.F) {
	for _, lines := range [][]string{{ptr, srv, txt, a, aaaa}, {bye}, {ptr}} {
		raw, err := records(f, lines...).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		msg := new(dns.Msg)
		if msg.Unpack(raw) != nil {
			return
		}
		h := newHarness(t)
		h.take(msg, eth0, h.now)
		for _, q := range h.pass(5 * time.Second) {
			if _, err := q.Pack(); err != nil {
				t.Errorf("a question that cannot be sent: %v", err)
			}
		}
	})
}
