package secretservice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	service "github.com/keybase/go-keychain/secretservice"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// patience bounds one call: a service that hangs must not hang the host.
const patience = 30 * time.Second

// noAutoStart keeps the bus from starting a service that does not run.
const noAutoStart = 0x2

// magic begins every stored value: the library gives an empty one where it
// cannot decrypt, and an empty value is a value.
const magic = "osk1"

// Attributes of our items.
const (
	attrApplication = "application"
	attrHome        = "osaurus-home"
	attrService     = "osaurus-service"
	attrAccount     = "osaurus-account"
)

// connection is the one of this process: the library cannot close one, and
// waits for one prompt at a time.
var connection struct {
	mu      sync.Mutex
	service *service.SecretService
	session *service.Session // proven; nil for none
}

// Store is a keystore.Store in the default collection of the Secret Service.
type Store struct {
	home string
	turn chan struct{} // taken for the length of a call

	mu     sync.Mutex
	closed bool
}

var _ keystore.Store = (*Store)(nil)

// Available reports whether a Secret Service runs and its default collection
// is there and unlocked. It starts nothing and never asks the owner. Errors
// are fault.KeystoreLocked with the reason.
func Available(ctx context.Context) error {
	return within(ctx, func() error { return unlocked(nil) })
}

// Open returns the store of the home with that id, whose items no other home
// reads. Errors are those of Available.
func Open(ctx context.Context, home string) (*Store, error) {
	if err := Available(ctx); err != nil {
		return nil, err
	}
	return &Store{home: home, turn: make(chan struct{}, 1)}, nil
}

// haveBus reports whether there is a session bus. Without an address the
// library would start a bus of its own.
func haveBus() error {
	if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a == "" || strings.HasPrefix(a, "autolaunch:") {
		return errors.New("there is no session bus")
	}
	return nil
}

// within runs f under patience. One that hangs is left behind.
func within(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return translate(err)
	case <-ctx.Done():
		return fault.New(fault.KeystoreLocked, fmt.Errorf("the Secret Service does not answer: %w", ctx.Err()))
	}
}

// translate gives the library's errors the codes of the port.
func translate(err error) error {
	if err == nil || errors.Is(err, fault.KeyNotFound) || errors.Is(err, fault.KeystoreCorrupt) || errors.Is(err, fault.KeystoreLocked) {
		return err
	}
	var dismissed service.PromptDismissedError
	if errors.As(err, &dismissed) {
		return fault.New(fault.KeystoreDenied, err)
	}
	return fault.New(fault.KeystoreLocked, err)
}

// unlocked connects, and calls f when the collection can be read.
func unlocked(f func(*service.SecretService, *service.Session) error) error {
	if err := haveBus(); err != nil {
		return err
	}
	connection.mu.Lock()
	defer connection.mu.Unlock()
	if connection.service == nil {
		s, err := service.NewService()
		if err != nil {
			return err
		}
		connection.service = s
	}
	s := connection.service
	reply := s.Obj(service.DefaultCollection).Call("org.freedesktop.DBus.Properties.Get", noAutoStart, "org.freedesktop.Secret.Collection", "Locked")
	if reply.Err != nil {
		// The connection may have died with its bus; the next call tries anew.
		connection.service, connection.session = nil, nil
		return fmt.Errorf("no Secret Service with a login keyring runs: %w", reply.Err)
	}
	if value, ok := first(reply.Body).(interface{ Value() any }); !ok || value.Value() != false {
		return errors.New("the login keyring is locked")
	}
	if f == nil {
		return nil
	}
	var err error
	try := func() error {
		if connection.session == nil {
			if connection.session, err = proven(s); err != nil {
				return err
			}
		}
		return f(s, connection.session)
	}
	if err = try(); err == nil || errors.Is(err, fault.KeyNotFound) {
		return err
	}
	// A service that was started anew does not know the session.
	connection.session = nil
	return try()
}

// sessionTries bounds how many sessions are tried. One in 128 does not work:
// the library drops leading zeros of the shared secret, the service does not.
const sessionTries = 8

// proven opens a session through which a probe went in and came out again:
// a broken one could replace an item by something that nobody can read.
func proven(s *service.SecretService) (*service.Session, error) {
	var failed error
	for range sessionTries {
		session, err := s.OpenSession(service.AuthenticationDHAES)
		if err != nil {
			return nil, err
		}
		if failed = probe(s, session); failed == nil {
			return session, nil
		}
		s.CloseSession(session)
	}
	return nil, failed
}

func probe(s *service.SecretService, session *service.Session) error {
	sent := rand.Text()
	sealed, err := session.NewSecret([]byte(sent))
	if err != nil {
		return err
	}
	item, err := s.CreateItem(service.DefaultCollection, service.NewSecretProperties("Osaurus probe", service.Attributes{attrApplication: "osaurus", "osaurus-probe": "1"}), sealed, service.ReplaceBehaviorReplace)
	if err != nil {
		return err
	}
	got, err := s.GetSecret(item, *session)
	if err == nil && string(got) != sent {
		err = errors.New("the Secret Service garbles what it is given")
	}
	return errors.Join(err, s.DeleteItem(item))
}

func first(body []any) any {
	if len(body) == 0 {
		return nil
	}
	return body[0]
}

// call runs f while the store is open.
func (s *Store) call(ctx context.Context, f func(*service.SecretService, *service.Session) error) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fault.New(fault.KeystoreLocked, ctx.Err())
	}
	return within(ctx, func() error {
		defer func() { <-s.turn }()
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return fault.KeystoreLocked
		}
		return unlocked(f)
	})
}

func (s *Store) attributes(svc string) service.Attributes {
	return service.Attributes{attrApplication: "osaurus", attrHome: s.home, attrService: svc}
}

func (s *Store) item(svc, account string) service.Attributes {
	a := s.attributes(svc)
	a[attrAccount] = account
	return a
}

// Get implements keystore.Store.
func (s *Store) Get(ctx context.Context, svc, account string) (secret.Bytes, error) {
	var value secret.Bytes
	err := s.call(ctx, func(c *service.SecretService, session *service.Session) error {
		items, err := c.SearchCollection(service.DefaultCollection, s.item(svc, account))
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return fault.KeyNotFound
		}
		raw, err := c.GetSecret(items[0], *session)
		if err != nil {
			return err
		}
		defer clear(raw)
		plain, ok := strings.CutPrefix(string(raw[:min(len(raw), len(magic))]), magic)
		if !ok || plain != "" {
			return fault.New(fault.KeystoreCorrupt, errors.New("an item of the login keyring is not as it was written"))
		}
		value = secret.New(raw[len(magic):])
		return nil
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	return value, nil
}

// Put implements keystore.Store.
func (s *Store) Put(ctx context.Context, svc, account string, value secret.Bytes) error {
	raw := append([]byte(magic), value.Expose()...)
	return s.call(ctx, func(c *service.SecretService, session *service.Session) error {
		defer clear(raw)
		sealed, err := session.NewSecret(raw)
		if err != nil {
			return err
		}
		properties := service.NewSecretProperties("Osaurus "+svc+" "+account, s.item(svc, account))
		_, err = c.CreateItem(service.DefaultCollection, properties, sealed, service.ReplaceBehaviorReplace)
		return err
	})
}

// Delete implements keystore.Store.
func (s *Store) Delete(ctx context.Context, svc, account string) error {
	return s.call(ctx, func(c *service.SecretService, _ *service.Session) error {
		items, err := c.SearchCollection(service.DefaultCollection, s.item(svc, account))
		for _, item := range items {
			err = errors.Join(err, c.DeleteItem(item))
		}
		return err
	})
}

// List implements keystore.Store.
func (s *Store) List(ctx context.Context, svc string) ([]string, error) {
	accounts := []string{}
	err := s.call(ctx, func(c *service.SecretService, _ *service.Session) error {
		items, err := c.SearchCollection(service.DefaultCollection, s.attributes(svc))
		for _, item := range items {
			a, failed := c.GetAttributes(item)
			if err = errors.Join(err, failed); err == nil {
				accounts = append(accounts, a[attrAccount])
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(accounts)
	return slices.Compact(accounts), nil
}

// Strength implements keystore.Store.
func (s *Store) Strength() keystore.Strength { return keystore.LoginSession }

// Close implements keystore.Store. The connection stays: it belongs to the
// process and holds no item.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
