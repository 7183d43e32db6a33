package accesskey

import (
	"crypto/sha256"
	"strings"
	"sync"
	"testing"

	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/internal/benchratio"
	"osaurus/engine/signature"
)

// BenchmarkValidate is rows 1a to 1e.
func BenchmarkValidate(b *testing.B) {
	w := newWorld(b)
	token, _ := w.mint(b, w.agent, MintRequest{})
	raw := []byte(token)
	digest := signature.SignedAccess.Digest([]byte("payload"))
	sig, err := w.agent.Sign(b.Context(), digest)
	if err != nil {
		b.Fatal(err)
	}
	recovery := func() {
		if _, err := signature.Recover(digest, sig); err != nil {
			b.Fatal(err)
		}
	}
	hit := func() {
		if _, err := w.Validate(token); err != nil {
			b.Fatal(err)
		}
	}
	digestOf := sha256.Sum256(raw)
	uncached := func() {
		w.cache.forget(&digestOf)
		hit()
	}
	hash := func() { sha256.Sum256(raw) }
	b.Run("1a uncached vs recovery", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(1/1.2), uncached, recovery)
	})
	hit()
	b.Run("1b cached hit vs SHA-256", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(1/1.45), hit, hash)
	})
	b.Run("1b cached hit vs uncached", func(b *testing.B) {
		fresh := newWorld(b)
		cached, _ := fresh.mint(b, fresh.agent, MintRequest{})
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(300), func() {
			if _, err := fresh.Validate(cached); err != nil {
				b.Fatal(err)
			}
		}, uncached)
	})
	b.Run("1b allocations of a hit", func(b *testing.B) {
		benchratio.Measure(b, 1, "allocs", benchratio.AtMost(0), func() float64 { return testing.AllocsPerRun(100, hit) })
	})
	b.Run("1c hit after a change vs plain hit", func(b *testing.B) {
		agents := []address.Address{w.agent.Address()}
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(1/1.5), func() {
			w.SetAudiences(w.master.Address(), agents)
			hit()
		}, func() {
			// The change costs the same on both sides; only the hit differs.
			w.SetAudiences(w.master.Address(), agents)
			w.snap.Load()
			hash()
		})
	})
	refusals(b, w, hash, recovery)
	const each = 1000
	b.Run("1e hits on two cores vs one", func(b *testing.B) {
		hit()
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(1/1.15), func() {
			var group sync.WaitGroup
			for range 2 {
				group.Go(func() {
					for range each {
						hit()
					}
				})
			}
			group.Wait()
		}, func() {
			for range 2 * each {
				hit()
			}
		})
	})
}

func refusals(b *testing.B, w *world, hash, recovery func()) {
	b.Helper()
	refused := func(token string) func() {
		return func() {
			if _, err := w.Validate(token); err == nil {
				b.Fatal("it passed")
			}
		}
	}
	malformed := "osk-v1." + strings.Repeat("!", 300) + "." + strings.Repeat("0", 130)
	b.Run("1d malformed vs SHA-256", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(0.5), refused(malformed), hash)
	})
	stranger, err := w.master.Agent(identity.Path{Index: 99})
	if err != nil {
		b.Fatal(err)
	}
	foreign := forge(b, stranger, Claims{Audience: w.agent.Address(), Issuer: stranger.Address(), Counter: 1, IssuedAt: 1_800_000_000, Nonce: strings.Repeat("n", 32)})
	b.Run("1d issuer not listed vs recovery", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(20), refused(foreign), recovery)
	})
}

// forget drops one token from the cache, which nothing but this needs.
func (c *cache) forget(digest *sum) {
	set := &c.slots[setOf(digest)]
	for i := range set {
		set[i].Store(nil)
	}
}
