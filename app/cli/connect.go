package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// withHost runs f against the running host, or against the home opened here
// for the length of the call when none runs. A home that another command has
// is waited for.
func (a *app) withHost(ctx context.Context, f func(ctx context.Context, c *control.Client) error) error {
	return a.withHome(ctx, a.offline, f)
}

// withLook is withHost for what only looks, also at a home whose keystore is
// locked.
func (a *app) withLook(ctx context.Context, f func(ctx context.Context, c *control.Client) error) error {
	a.looks = true
	return a.withHost(ctx, f)
}

// withSharedHome is withHost for what lasts: a home that is opened here is
// behind the socket that a host has, so that other commands reach it as they
// reach a host, and none waits for the end.
func (a *app) withSharedHome(ctx context.Context, f func(ctx context.Context, c *control.Client) error) error {
	return a.withHome(ctx, func(ctx context.Context, f func(ctx context.Context, c *control.Client) error) error {
		return a.offlineAt(ctx, a.socket(), f)
	}, f)
}

// withHome looks for whoever has the home until somebody answers or open gets
// it.
func (a *app) withHome(ctx context.Context, open func(context.Context, func(context.Context, *control.Client) error) error, f func(ctx context.Context, c *control.Client) error) error {
	c := control.NewClient(a.socket())
	defer c.Close()
	for begun := time.Now(); ; {
		if _, err := os.Lstat(a.socket()); err == nil {
			if _, err := c.Settings(ctx); !errors.Is(err, control.ErrNoHost) {
				return f(ctx, c)
			}
		}
		if err := open(ctx, f); !errors.Is(err, engine.ErrInUse) || time.Since(begun) > otherCommand {
			return err
		}
	}
}

// withRunning is withHost for what makes sense only while a host serves; a
// home that a command has open for others does not.
func (a *app) withRunning(ctx context.Context, f func(ctx context.Context, c *control.Client) error) error {
	c := control.NewClient(a.socket())
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if !s.Serving {
		return control.ErrNoHost
	}
	return f(ctx, c)
}

// offline opens the home without listening to the network, behind a socket of
// its own, so that every command has one way to work.
func (a *app) offline(ctx context.Context, f func(ctx context.Context, c *control.Client) error) (err error) {
	dir, err := os.MkdirTemp("", "osaurus-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return a.offlineAt(ctx, filepath.Join(dir, "control.sock"), f)
}

// offlineAt opens the home behind a socket, until f returns; "osaurus stop"
// ends the context of f.
func (a *app) offlineAt(ctx context.Context, socket string, f func(ctx context.Context, c *control.Client) error) (err error) {
	e, err := a.open(ctx, lookAgain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close(context.WithoutCancel(ctx))) }()
	if err := e.Unlock(ctx); err != nil {
		a.say("note: the agents' keys are not available: %s", err)
	}
	l, err := control.ListenSocket(ctx, socket)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- control.NewServer(e, stop).Serve(serving, l) }()
	c := control.NewClient(socket)
	defer func() {
		c.Close()
		stop()
		err = errors.Join(err, <-done)
	}()
	return f(serving, c)
}

// open opens the engine. It waits so long for another command to leave.
func (a *app) open(ctx context.Context, wait time.Duration) (e *engine.Engine, err error) {
	err = a.unlocking(wait, func(p engine.Ports, c engine.Config) (err error) {
		e, err = engine.Open(ctx, p, c)
		return err
	})
	return e, err
}

// How long a command waits for another one in the same home, and how long
// before it looks whether that one answers by now.
const (
	otherCommand = 10 * time.Second
	lookAgain    = 200 * time.Millisecond
)

// untilFree is how long a command that needs the home to itself waits: not at
// all for a host, which does not end soon.
func (a *app) untilFree() time.Duration {
	if _, err := os.Lstat(a.socket()); err == nil {
		return 0
	}
	return otherCommand
}

// unlocking runs do, and again with a passphrase that it asks for when the
// keystore has one.
func (a *app) unlocking(wait time.Duration, do func(engine.Ports, engine.Config) error) error {
	passphrase, err := a.givenPassphrase()
	if err != nil {
		return err
	}
	defer func() { passphrase.Destroy() }()
	ports := a.Ports()
	ports.Logger = a.logger()
	config := engine.Config{Home: a.home, Version: Version, Wait: wait, Passphrase: passphrase}
	err = do(ports, config)
	needed := errors.Is(err, keystore.ErrPassphrase)
	switch {
	case err == nil, !errors.Is(err, fault.KeystoreLocked), needed && !passphrase.IsZero():
		return err
	case a.looks && (!needed || !a.term.interactive):
		config.Locked = true
		return do(ports, config)
	case !needed || !a.term.interactive:
		return err
	}
	if passphrase, err = a.term.askSecret("Passphrase of the keystore: "); err != nil {
		return err
	}
	config.Passphrase = passphrase
	return do(ports, config)
}

// credentialName is the systemd credential with the passphrase (systemd.exec(5),
// LoadCredential).
const credentialName = "osaurus-passphrase" //nolint:gosec // a name, no credential

// givenPassphrase reads it from a descriptor or a systemd credential; zero
// when neither was given.
func (a *app) givenPassphrase() (secret.Bytes, error) {
	if a.passphraseFD >= 0 {
		return readSecretFD(a.passphraseFD, a.Stdin)
	}
	if dir := a.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		raw, err := os.ReadFile(filepath.Join(dir, credentialName))
		if errors.Is(err, os.ErrNotExist) {
			return secret.Bytes{}, nil
		}
		if err != nil {
			return secret.Bytes{}, err
		}
		return trimLine(raw), nil
	}
	return secret.Bytes{}, nil
}
