package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/brutella/dnssd"
	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"osaurus/engine/discovery"
)

// maxPacket bounds a message in bytes (RFC 6762 section 17).
const maxPacket = 9000

// packet is one message and the interface it came in by.
type packet struct {
	msg   *dns.Msg
	iface *net.Interface
}

// Browse implements discovery.Browser. It asks at growing intervals, so hosts
// that are still probing for their names are found, and keeps to the grace of
// PROTOCOL.md section 3 before it calls one lost.
func (m *MDNS) Browse(ctx context.Context, f func(discovery.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	socket, err := listen()
	if err != nil {
		return err
	}
	packets := make(chan packet)
	wait := socket.read(ctx, packets)
	defer wait()
	defer socket.close()
	t := newTable(f)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-packets:
			t.take(p.msg, p.iface, time.Now())
		case now := <-timer.C:
			socket.join(m.interfaces())
			for _, query := range t.tick(now) {
				socket.ask(query)
			}
		}
		timer.Reset(time.Until(t.next()))
	}
}

// interfaces are those that multicast, up to the configured ones.
func (m *MDNS) interfaces() []*net.Interface {
	return slices.DeleteFunc(dnssd.MulticastInterfaces(), func(i *net.Interface) bool {
		return len(m.o.Interfaces) > 0 && !slices.Contains(m.o.Interfaces, i.Name)
	})
}

// socket is the pair of multicast sockets of one browser.
type socket struct {
	v4     *ipv4.PacketConn // nil where there is none
	v6     *ipv6.PacketConn
	ifaces atomic.Pointer[[]*net.Interface]
}

func listen() (*socket, error) {
	s := &socket{}
	s.ifaces.Store(&[]*net.Interface{})
	c4, err4 := net.ListenUDP("udp4", dnssd.AddrIPv4LinkLocalMulticast)
	if err4 == nil {
		s.v4 = ipv4.NewPacketConn(c4)
		_ = s.v4.SetControlMessage(ipv4.FlagInterface, true) // without it nothing is accepted
		_ = s.v4.SetMulticastTTL(255)                        // RFC 6762 section 11: a SHOULD
	}
	c6, err6 := net.ListenUDP("udp6", dnssd.AddrIPv6LinkLocalMulticast)
	if err6 == nil {
		s.v6 = ipv6.NewPacketConn(c6)
		_ = s.v6.SetControlMessage(ipv6.FlagInterface, true) // as above
		_ = s.v6.SetMulticastHopLimit(255)
	}
	if err4 != nil && err6 != nil {
		return nil, fmt.Errorf("listening for mDNS: %w", errors.Join(err4, err6))
	}
	return s, nil
}

// join makes the socket hear these interfaces; those it hears already refuse,
// and so do those that went down.
func (s *socket) join(ifaces []*net.Interface) {
	for _, i := range ifaces {
		if s.v4 != nil {
			_ = s.v4.JoinGroup(i, &net.UDPAddr{IP: dnssd.IPv4LinkLocalMulticast})
		}
		if s.v6 != nil {
			_ = s.v6.JoinGroup(i, &net.UDPAddr{IP: dnssd.IPv6LinkLocalMulticast})
		}
	}
	s.ifaces.Store(&ifaces)
}

func (s *socket) close() {
	if s.v4 != nil {
		_ = s.v4.Close() // nothing was buffered
	}
	if s.v6 != nil {
		_ = s.v6.Close()
	}
}

// read hands over what arrives until the sockets close; the function it
// returns waits for that.
func (s *socket) read(ctx context.Context, into chan<- packet) (wait func()) {
	var readers []chan struct{}
	start := func(next func(b []byte) (n, iface int, from net.Addr, err error)) {
		done := make(chan struct{})
		readers = append(readers, done)
		go func() {
			defer close(done)
			s.readOne(ctx, next, into)
		}()
	}
	if s.v4 != nil {
		start(func(b []byte) (int, int, net.Addr, error) {
			n, cm, from, err := s.v4.ReadFrom(b)
			if cm == nil {
				return n, 0, from, err
			}
			return n, cm.IfIndex, from, err
		})
	}
	if s.v6 != nil {
		start(func(b []byte) (int, int, net.Addr, error) {
			n, cm, from, err := s.v6.ReadFrom(b)
			if cm == nil {
				return n, 0, from, err
			}
			return n, cm.IfIndex, from, err
		})
	}
	return func() {
		for _, done := range readers {
			<-done
		}
	}
}

func (s *socket) readOne(ctx context.Context, next func([]byte) (int, int, net.Addr, error), into chan<- packet) {
	b := make([]byte, maxPacket)
	for {
		n, index, from, err := next(b)
		if err != nil {
			return // closed
		}
		ifaces := *s.ifaces.Load()
		at := slices.IndexFunc(ifaces, func(i *net.Interface) bool { return i.Index == index })
		if udp, ok := from.(*net.UDPAddr); !ok || udp.Port != dnssd.AddrIPv4LinkLocalMulticast.Port || at < 0 {
			continue // RFC 6762 section 6: answers come from port 5353
		}
		msg := new(dns.Msg)
		if msg.Unpack(b[:n]) != nil || !msg.Response {
			continue
		}
		select {
		case into <- packet{msg, ifaces[at]}:
		case <-ctx.Done():
			return
		}
	}
}

// ask sends a query on every interface. One that is down is asked next time;
// a name from the network that makes no question is not asked for.
func (s *socket) ask(query *dns.Msg) {
	raw, err := query.Pack()
	if err != nil {
		return
	}
	for _, i := range *s.ifaces.Load() {
		if s.v4 != nil {
			_, _ = s.v4.WriteTo(raw, &ipv4.ControlMessage{IfIndex: i.Index}, dnssd.AddrIPv4LinkLocalMulticast)
		}
		if s.v6 != nil {
			_, _ = s.v6.WriteTo(raw, &ipv6.ControlMessage{IfIndex: i.Index}, &net.UDPAddr{IP: dnssd.IPv6LinkLocalMulticast, Port: dnssd.AddrIPv6LinkLocalMulticast.Port, Zone: i.Name})
		}
	}
}
