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
	"osaurus/engine/secret"
)

// withHost runs f against the running host, or against the home opened here
// for the length of the call when none runs.
func (a *app) withHost(ctx context.Context, f func(ctx context.Context, c *control.Client) error) error {
	c := control.NewClient(a.socket())
	defer c.Close()
	if _, err := os.Lstat(a.socket()); err == nil {
		if _, err := c.Settings(ctx); !errors.Is(err, control.ErrNoHost) {
			return f(ctx, c)
		}
	}
	return a.offline(ctx, f)
}

// withRunning is withHost for what makes sense only while a host runs.
func (a *app) withRunning(ctx context.Context, f func(ctx context.Context, c *control.Client) error) error {
	c := control.NewClient(a.socket())
	defer c.Close()
	if _, err := c.Settings(ctx); err != nil {
		return err
	}
	return f(ctx, c)
}

// offline opens the home without listening to the network, behind a socket of
// its own, so that every command has one way to work.
func (a *app) offline(ctx context.Context, f func(ctx context.Context, c *control.Client) error) (err error) {
	e, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close(context.WithoutCancel(ctx))) }()
	if err := e.Unlock(ctx); err != nil {
		a.say("note: the agents' keys are not available: %s", err)
	}
	dir, err := os.MkdirTemp("", "osaurus-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	socket := filepath.Join(dir, "control.sock")
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
	return f(ctx, c)
}

// open opens the engine.
func (a *app) open(ctx context.Context) (e *engine.Engine, err error) {
	err = a.unlocking(func(p engine.Ports, c engine.Config) (err error) {
		e, err = engine.Open(ctx, p, c)
		return err
	})
	return e, err
}

// otherCommand is how long a command waits for another one in the same home.
const otherCommand = 10 * time.Second

// unlocking runs do, and again with a passphrase that it asks for when the
// keystore has one.
func (a *app) unlocking(do func(engine.Ports, engine.Config) error) error {
	passphrase, err := a.givenPassphrase()
	if err != nil {
		return err
	}
	defer func() { passphrase.Destroy() }()
	ports := a.Ports()
	ports.Logger = a.logger()
	config := engine.Config{Home: a.home, Version: Version}
	if _, err := os.Lstat(a.socket()); err != nil {
		config.Wait = otherCommand // no host runs: it is a command that ends soon
	}
	config.Passphrase = passphrase
	err = do(ports, config)
	if err == nil || !errors.Is(err, fault.KeystoreLocked) || !passphrase.IsZero() || !a.term.interactive {
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
