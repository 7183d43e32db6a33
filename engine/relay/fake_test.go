package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/relay/wire"
	"osaurus/engine/secret"
)

// fakeConn is a socket whose relay is the test.
type fakeConn struct {
	in     chan []byte // to the host
	out    chan []byte // from the host
	closed chan struct{}
	once   sync.Once
	code   int
}

func newFakeConn() *fakeConn {
	return &fakeConn{in: make(chan []byte, 64), out: make(chan []byte, 1024), closed: make(chan struct{})}
}

var errGoneConn = errors.New("connection lost")

func (c *fakeConn) Read(ctx context.Context) ([]byte, error) {
	select {
	case raw := <-c.in:
		return raw, nil
	default:
	}
	select {
	case raw := <-c.in:
		return raw, nil
	case <-c.closed:
		return nil, errGoneConn
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *fakeConn) Write(ctx context.Context, raw []byte) error {
	select {
	case <-c.closed:
		return errGoneConn
	case <-ctx.Done():
		return ctx.Err()
	case c.out <- raw:
		return nil
	}
}

func (c *fakeConn) Close(code int, _ string) error {
	c.once.Do(func() { c.code = code; close(c.closed) })
	return nil
}

// keys are agents whose keys are derived from a master.
type keys struct {
	list    []Agent
	signers map[address.Address]identity.AgentKey
}

func newKeys(t testing.TB, n int) *keys {
	t.Helper()
	master, err := identity.NewMasterKey(secret.New([]byte(strings.Repeat("k", 32))))
	if err != nil {
		t.Fatal(err)
	}
	k := &keys{signers: map[address.Address]identity.AgentKey{}}
	for i := range n {
		key, err := master.Agent(identity.Path{Index: uint32(i)})
		if err != nil {
			t.Fatal(err)
		}
		k.list = append(k.list, Agent{fmt.Sprintf("agent-%d", i), key.Address()})
		k.signers[key.Address()] = key
	}
	return k
}

func (k *keys) signer(_ context.Context, a address.Address) (identity.Signer, error) {
	if key, ok := k.signers[a]; ok {
		return key, nil
	}
	return nil, errors.New("no such key")
}

// rig is a tunnel and its fake relay.
type rig struct {
	t      *testing.T
	tunnel *Tunnel
	keys   *keys
	dials  chan *fakeConn

	mu     sync.Mutex
	wanted []Agent
	refuse error // of Dial
	served http.HandlerFunc
}

// newRig runs a tunnel for n agents. It must be called in a synctest bubble.
func newRig(t *testing.T, n int, change ...func(*Config)) *rig {
	t.Helper()
	r := newIdleRig(t, n, change...)
	r.run()
	return r
}

// newIdleRig makes a tunnel that does not dial yet.
func newIdleRig(t *testing.T, n int, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, keys: newKeys(t, n), dials: make(chan *fakeConn, 4096)}
	r.wanted = r.keys.list
	c := Config{
		Agents: func() []Agent { r.mu.Lock(); defer r.mu.Unlock(); return r.wanted },
		Signer: r.keys.signer,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r.mu.Lock()
			served := r.served
			r.mu.Unlock()
			served(w, q)
		}),
		Dial: func(context.Context) (Conn, error) {
			r.mu.Lock()
			err := r.refuse
			r.mu.Unlock()
			if err != nil {
				return nil, err
			}
			c := newFakeConn()
			r.dials <- c
			return c, nil
		},
		Jitter: func() float64 { return 0.5 },
	}
	for _, f := range change {
		f(&c)
	}
	r.tunnel = New(c)
	return r
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.tunnel.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-done })
}

func (r *rig) want(list ...Agent) {
	r.mu.Lock()
	r.wanted = list
	r.mu.Unlock()
	r.tunnel.Changed()
}

func (r *rig) refused(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = err
}

// dialled returns the socket that was opened, or nil.
func (r *rig) dialled() *fakeConn {
	synctest.Wait()
	select {
	case c := <-r.dials:
		return c
	default:
		return nil
	}
}

// latest returns the socket that is open now.
func (r *rig) latest() *fakeConn {
	r.t.Helper()
	for range 100 {
		for c := r.dialled(); c != nil; c = r.dialled() {
			if !c.isClosed() {
				return c
			}
		}
		pass(time.Second)
	}
	r.t.Fatal("no socket is open")
	return nil
}

// put sends a frame to the host.
func (c *fakeConn) put(format string, args ...any) {
	c.in <- fmt.Appendf(nil, format, args...)
	synctest.Wait()
}

// take returns the next frame of the host; a zero frame when there is none.
func (c *fakeConn) take(t *testing.T) wire.Frame {
	t.Helper()
	synctest.Wait()
	select {
	case raw := <-c.out:
		f, err := wire.Parse(raw)
		if err != nil {
			t.Fatalf("the host sent %.200s: %v", raw, err)
		}
		return f
	default:
		return wire.Frame{}
	}
}

func (c *fakeConn) isClosed() bool {
	synctest.Wait()
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// accept authenticates whoever asks, as a relay does.
func (r *rig) accept(c *fakeConn) wire.Frame {
	r.t.Helper()
	if c == nil {
		r.t.Fatal("no socket was opened")
	}
	c.put(`{"type":"challenge","nonce":"%064x"}`, 7)
	auth := c.take(r.t)
	if auth.Type != wire.Auth || len(auth.Agents) == 0 || !auth.WellFormed() {
		r.t.Fatalf("instead of auth: %+v", auth)
	}
	var list []string
	for _, a := range auth.Agents {
		if _, ok := wire.Verify(a, auth.Nonce, auth.Timestamp); !ok {
			r.t.Fatalf("%s does not verify", a.Address)
		}
		list = append(list, fmt.Sprintf(`{"address":%q,"url":"https://%s.relay.test"}`, strings.ToLower(a.Address), strings.ToLower(a.Address)))
	}
	c.put(`{"type":"auth_ok","agents":[%s],"region":"test"}`, strings.Join(list, ","))
	return auth
}

// open connects and authenticates.
func (r *rig) open() *fakeConn {
	r.t.Helper()
	c := r.dialled()
	r.accept(c)
	return c
}

func (r *rig) states() string {
	synctest.Wait()
	var all []string
	for _, s := range r.tunnel.Status() {
		all = append(all, s.State.String())
	}
	return strings.Join(all, ",")
}

// ask sends a request for the first agent.
func (r *rig) ask(c *fakeConn, id, method, path, body string) {
	c.put(`{"type":"request","id":%q,"method":%q,"path":%q,"headers":{"x-agent-address":%q,"x-forwarded-for":"9.9.9.9"},"body":%q}`, id, method, path, r.keys.list[0].Address.Lower(), body)
}

func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// pass lets fake time pass.
func pass(d time.Duration) { <-time.After(d) }
