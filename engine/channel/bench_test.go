package channel

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/dh/x25519"
	"golang.org/x/crypto/chacha20poly1305"

	"osaurus/engine/internal/benchratio"
	"osaurus/engine/signature"
)

// The rows of the performance goals that concern the channel; each measures
// the subject and what limits it in one process.

// handshakeOnce runs the machine, both sides, JSON included.
func handshakeOnce(b testing.TB, signer keySigner, now time.Time) (client, server *keys) {
	return shakeHands(b, signer, now, false)
}

func shakeHands(b testing.TB, signer keySigner, now time.Time, hybrid bool) (client, server *keys) {
	i, err := newInitiator(signer.Address(), nil)
	if err == nil && hybrid {
		err = i.propose(nil)
	}
	if err != nil {
		b.Fatal(err)
	}
	h, err := parseHello(i.hello.append(nil))
	if err != nil {
		b.Fatal(err)
	}
	r, err := newResponder(h, now, nil)
	if err != nil {
		b.Fatal(err)
	}
	answer, server := r.finish(signer.key.Sign(r.digest()))
	client, _, err = i.finish(answer, now)
	if err != nil {
		b.Fatal(err)
	}
	return client, server
}

// firstCall seals, opens and answers one small request.
func firstCall(b testing.TB, client, server *keys) {
	text, err := appendInnerRequest(nil, &innerRequest{method: "GET", path: "/agents", authorization: "Bearer osk-v1.a.b"})
	if err != nil {
		b.Fatal(err)
	}
	body, err := sealEnvelope(client, text, 1)
	if err != nil {
		b.Fatal(err)
	}
	e, err := parseEnvelope(body, nil)
	if err != nil {
		b.Fatal(err)
	}
	plaintext, err := server.openRequest(e.ct, e.seq)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := parseInnerRequest(plaintext, nil); err != nil {
		b.Fatal(err)
	}
	answerOnce(b, client, server)
}

func answerOnce(b testing.TB, client, server *keys) {
	rec, err := server.record(1)
	if err != nil {
		b.Fatal(err)
	}
	text, err := appendInnerReply(nil, innerReply{status: 200, contentType: "application/json", body: []byte("{}")})
	if err != nil {
		b.Fatal(err)
	}
	frame := (&sealer{record: rec}).whole(nil, text)
	if rec, err = client.record(1); err != nil {
		b.Fatal(err)
	}
	plaintext, err := (&opener{record: rec}).whole(frame)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := parseInnerReply(plaintext, nil); err != nil {
		b.Fatal(err)
	}
}

// TestHandshakeAllocations is row 3d. Not parallel: AllocsPerRun counts the
// whole process.
func TestHandshakeAllocations(t *testing.T) {
	const goal = 250
	signer := testSigner(t, alice)
	if n := testing.AllocsPerRun(20, func() {
		client, server := handshakeOnce(t, signer, epoch)
		firstCall(t, client, server)
	}); n > goal {
		t.Errorf("a handshake and its first call take %v allocations, goal %d", n, goal)
	}
}

func BenchmarkHandshake(b *testing.B) {
	signer := testSigner(b, alice)
	digest := signature.SecureChannel.Digest([]byte("transcript"))
	ours := func() { handshakeOnce(b, signer, epoch) }
	b.Run("3a vs primitives", func(b *testing.B) {
		var scalar, pub, shared x25519.Key
		if _, err := rand.Read(scalar[:]); err != nil {
			b.Fatal(err)
		}
		x25519.KeyGen(&pub, &scalar)
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(1/1.3), ours, func() {
			for range 2 {
				x25519.KeyGen(&pub, &scalar)
				x25519.Shared(&shared, &scalar, &pub)
			}
			if _, err := signature.Recover(digest, signer.key.Sign(digest)); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("3b vs TLS", func(b *testing.B) {
		server, client := tlsConfigs(b, false)
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(0.85), ours, func() { tlsCall(b, server, client, false) })
	})
	hybrid := func() { shakeHands(b, signer, epoch, true) }
	b.Run("3e hybrid vs classic", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Computing, benchratio.AtMost(2), hybrid, ours)
	})
	b.Run("3e hybrid vs hybrid TLS", func(b *testing.B) {
		server, client := tlsConfigs(b, false)
		server.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
		client.CurvePreferences = server.CurvePreferences
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(0.85), hybrid, func() { tlsCall(b, server, client, false) })
	})
	b.Run("3d allocations", func(b *testing.B) {
		benchratio.Measure(b, 3, "allocs", benchratio.AtMost(250), func() float64 {
			return testing.AllocsPerRun(20, func() {
				c, s := handshakeOnce(b, signer, epoch)
				firstCall(b, c, s)
			})
		})
	})
	b.Run("3c with a call vs mutual TLS", func(b *testing.B) {
		server, client := tlsConfigs(b, true)
		// An uncached bearer costs one recovery more.
		bearer := signer.key.Sign(digest)
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(0.7), func() {
			c, s := handshakeOnce(b, signer, epoch)
			if _, err := signature.Recover(digest, bearer); err != nil {
				b.Fatal(err)
			}
			firstCall(b, c, s)
		}, func() { tlsCall(b, server, client, true) })
	})
}

// tlsConfigs is TLS 1.3 with Ed25519 certificates and X25519 alone.
func tlsConfigs(b *testing.B, mutual bool) (server, client *tls.Config) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"peer"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		b.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	certs := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}
	curves := []tls.CurveID{tls.X25519}
	server = &tls.Config{Certificates: certs, MinVersion: tls.VersionTLS13, CurvePreferences: curves, SessionTicketsDisabled: true, ClientCAs: roots}
	client = &tls.Config{RootCAs: roots, ServerName: "peer", MinVersion: tls.VersionTLS13, CurvePreferences: curves}
	if mutual {
		server.ClientAuth, client.Certificates = tls.RequireAndVerifyClientCert, certs
	}
	return server, client
}

// tlsCall does a handshake over a pipe and, with call, sends a small message
// each way.
func tlsCall(b *testing.B, server, client *tls.Config, call bool) {
	x, y := net.Pipe()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(x, server)
		err := s.Handshake()
		if err == nil && call {
			buf := make([]byte, 64)
			if _, err = io.ReadFull(s, buf); err == nil {
				_, err = s.Write(buf)
			}
		}
		done <- err
	}()
	c := tls.Client(y, client)
	err := c.Handshake()
	if err == nil && call {
		buf := make([]byte, 64)
		if _, err = c.Write(buf); err == nil {
			_, err = io.ReadFull(c, buf)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	_, _ = x.Close(), y.Close()
}

func BenchmarkFrame(b *testing.B) {
	goals := map[string][2]float64{"portable": {0.38, 0.32}, "wide": {0.70, 0.65}} // 4a to 4c
	for _, size := range []int{50, 4096, 65536} {
		for _, name := range []string{"portable", "wide"} {
			goal := goals[name]
			if size == 50 {
				goal = [2]float64{0.5, 0.5} // 4d
			}
			plaintext := make([]byte, size)
			aead, err := chacha20poly1305.New(make([]byte, keySize))
			if err != nil {
				b.Fatal(err)
			}
			nonce, aad := make([]byte, nonceSize), make([]byte, 40)
			raw := make([]byte, 0, size+tagSize)
			ct := aead.Seal(nil, nonce, plaintext, aad)
			s, o := newReplyPair(b)
			frameCodec = codecs[name]
			wire := s.chunk(nil, plaintext)
			row := func(part string) string {
				switch {
				case size == 50:
					return "4d"
				case name == "wide":
					return "4c"
				case part == "seal":
					return "4a"
				}
				return "4b"
			}
			b.Run(fmt.Sprintf("%s seal %s %d", row("seal"), name, size), func(b *testing.B) {
				benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(goal[0]), func() { wire = s.chunk(wire[:0], plaintext) }, func() { raw = aead.Seal(raw[:0], nonce, plaintext, aad) })
			})
			s, _ = newReplyPair(b)
			wire = s.chunk(wire[:0], plaintext)
			b.Run(fmt.Sprintf("%s open %s %d", row("open"), name, size), func(b *testing.B) {
				benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(goal[1]), func() {
					o.seq = 0
					if _, _, err := o.chunk(wire); err != nil {
						b.Fatal(err)
					}
				}, func() {
					if _, err := aead.Open(raw[:0], nonce, ct, aad); err != nil {
						b.Fatal(err)
					}
				})
			})
			frameCodec = wideCodec
		}
	}
}

// BenchmarkLookups is row 5g.
func BenchmarkLookups(b *testing.B) {
	b.Run("5g replay check", func(b *testing.B) {
		var w replayWindow
		seq := uint64(0)
		const each = 1_000_000
		benchratio.Measure(b, 20, "cpu-ns", benchratio.AtMost(25), func() float64 {
			before := benchratio.CPUTime()
			for range each {
				seq++
				if !w.take(seq) {
					b.Fatal("refused")
				}
			}
			return float64(benchratio.CPUTime()-before) / each
		})
	})
	b.Run("5g session lookup", func(b *testing.B) {
		tab := newTable()
		all := fill(tab)
		texts := make([][]byte, len(all))
		for i, s := range all {
			texts[i] = s.text()
		}
		const each = 100_000
		benchratio.Measure(b, 20, "cpu-ns", benchratio.AtMost(120), func() float64 {
			before := benchratio.CPUTime()
			var group sync.WaitGroup
			for from := range 2 { // on as many cores
				group.Go(func() {
					for i := range each {
						if tab.get(texts[(i+997*from)%len(texts)], epoch) == nil {
							b.Error("unknown")
						}
					}
				})
			}
			group.Wait()
			return float64(benchratio.CPUTime()-before) / (2 * each)
		})
	})
}
