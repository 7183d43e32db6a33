package dnssd

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"osaurus/engine/discovery"
)

// How long a change waits for the rest of it, and how long the responder may
// take to resolve an instance before it is asked once more.
const (
	settle       = 200 * time.Millisecond
	resolveRetry = 2 * time.Second
)

// view turns what the responder says into events. It does no I/O and keeps no
// clock. Instances are known by name, hosts by theirs, both in lower case.
type view struct {
	report    func(discovery.Event)
	instances map[string]*instance
	hosts     map[string][]netip.Addr
}

// instance is one service instance.
type instance struct {
	sightings int       // one for each interface and protocol
	gone      time.Time // when the last of them ended; zero while there is one
	txt       map[string]string
	host      string // "" until it was resolved
	port      uint16
	resolve   time.Time // when to ask once more; zero for never
	reported  *discovery.Instance
	changed   time.Time // when it came to differ from what was reported
}

func newView(report func(discovery.Event)) *view {
	return &view{report: report, instances: map[string]*instance{}, hosts: map[string][]netip.Addr{}}
}

// sighted notes that an instance is there, and returns true when it has to be
// resolved.
func (v *view) sighted(name string, now time.Time) bool {
	i := v.instances[strings.ToLower(name)]
	if i == nil {
		if len(v.instances) >= discovery.MaxInstances {
			return false
		}
		i = &instance{gone: now}
		v.instances[strings.ToLower(name)] = i
	}
	i.sightings++
	if i.gone.IsZero() {
		return false
	}
	i.gone, i.resolve = time.Time{}, now.Add(resolveRetry)
	return true
}

// unsighted notes that an instance is no longer there on one interface.
func (v *view) unsighted(name string, now time.Time) {
	i := v.instances[strings.ToLower(name)]
	if i == nil || i.sightings == 0 {
		return
	}
	if i.sightings--; i.sightings == 0 {
		i.gone = now
	}
}

// away notes that the responder is gone, and with it all it knew.
func (v *view) away(now time.Time) {
	for _, i := range v.instances {
		if i.sightings, i.resolve = 0, (time.Time{}); i.gone.IsZero() {
			i.gone = now
		}
	}
	clear(v.hosts)
}

// resolved notes where an instance is and what it says of itself.
func (v *view) resolved(name, host string, port uint16, txt map[string]string, now time.Time) {
	i := v.instances[strings.ToLower(name)]
	if i == nil {
		return
	}
	i.host, i.port, i.txt, i.resolve = host, port, txt, time.Time{}
	v.compare(now)
}

// address notes that a host has an address, or no longer has it.
func (v *view) address(host string, a netip.Addr, add bool, now time.Time) {
	key := strings.ToLower(host)
	known, ok := v.hosts[key]
	if !ok && len(v.hosts) >= discovery.MaxHosts {
		return
	}
	at := slices.Index(known, a)
	switch {
	case !add && at >= 0:
		known = slices.Delete(known, at, at+1)
	case add && at < 0 && len(known) < discovery.MaxAddresses && a.IsValid() && !a.IsUnspecified() && !a.IsMulticast():
		known = append(known, a)
	}
	v.hosts[key] = known
	v.compare(now)
}

// compare marks every instance that is complete and not as it was reported.
func (v *view) compare(now time.Time) {
	for _, i := range v.instances {
		d, ok := v.describe(i)
		switch {
		case !ok || i.reported != nil && i.reported.Equal(d):
			i.changed = time.Time{}
		case i.changed.IsZero():
			i.changed = now
		}
	}
}

func (v *view) describe(i *instance) (discovery.Instance, bool) {
	ips := v.hosts[strings.ToLower(i.host)]
	if i.txt == nil || i.port == 0 || len(ips) == 0 {
		return discovery.Instance{}, false
	}
	d, ok := discovery.ParseTXT(i.txt)
	d.Host, d.Port, d.IPs = strings.TrimSuffix(i.host, "."), int(i.port), slices.Clone(ips)
	discovery.SortAddresses(d.IPs)
	return d, ok
}

// tick reports what is due. It returns the names that are to be resolved once
// more, those that are gone for good, and when to call it again.
func (v *view) tick(now time.Time) (again, gone []string, next time.Time) {
	soonest := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for name, i := range v.instances {
		if !i.gone.IsZero() {
			if due := i.gone.Add(discovery.Grace); now.Before(due) {
				soonest(due)
			} else {
				delete(v.instances, name)
				gone = append(gone, name)
				if i.reported != nil {
					v.report(discovery.Event{Lost: true, Instance: *i.reported})
				}
				continue
			}
		}
		if !i.changed.IsZero() {
			if due := i.changed.Add(settle); now.Before(due) {
				soonest(due)
			} else {
				v.tell(i)
			}
		}
		if !i.resolve.IsZero() {
			if now.Before(i.resolve) {
				soonest(i.resolve)
			} else {
				i.resolve = time.Time{}
				again = append(again, name)
			}
		}
	}
	return again, gone, next
}

func (v *view) tell(i *instance) {
	i.changed = time.Time{}
	if d, ok := v.describe(i); ok {
		i.reported = &d
		v.report(discovery.Event{Instance: d})
	}
}

// usedHosts returns the hosts that instances are on, and forgets the others.
func (v *view) usedHosts() map[string]bool {
	used := map[string]bool{}
	for _, i := range v.instances {
		if i.host != "" {
			used[strings.ToLower(i.host)] = true
		}
	}
	for host := range v.hosts {
		if !used[host] {
			delete(v.hosts, host)
		}
	}
	return used
}
