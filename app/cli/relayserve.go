package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/relay/server"
	"osaurus/engine/relay/server/redis"
	"osaurus/engine/secret"
)

// relayFlags are what "relay serve" is told.
type relayFlags struct {
	listen, domain, region, presenceFile               string
	trustProxy                                         []string
	redis, redisPassword                               string
	internalListen, internalURL, secretFile, metricsAt string
}

// relayServeCommand runs a relay. It needs no home and no host.
func (a *app) relayServeCommand() *cobra.Command {
	var f relayFlags
	c := command("", "serve", "Run a relay, for your hosts or for everybody's",
		"  osaurus relay serve --domain localhost:8080\n  osaurus relay serve --listen 127.0.0.1:8080 --domain relay.example.org --trust-proxy 127.0.0.1/32",
		cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.relayServe(ctx, f) })
	c.Long = "Run a relay. Hosts open tunnels to it, and callers reach their agents at\n<address>.<domain>. Behind a proxy that ends TLS, name the proxy with --trust-proxy;\nit must set Fly-Client-Ip or X-Forwarded-For itself, and pass on any subdomain.\n\nSeveral relays of one domain share a Redis and reach each other through\n--internal-listen, which the public must not reach."
	fs := c.Flags()
	fs.StringVar(&f.listen, "listen", "127.0.0.1:8080", "public address")
	fs.StringVar(&f.domain, "domain", "", "domain below which agents are reached (default $BASE_DOMAIN or "+server.DefaultDomain+")")
	fs.StringVar(&f.region, "region", "local", "name of the region, told to hosts and callers")
	fs.StringSliceVar(&f.trustProxy, "trust-proxy", nil, "network whose proxies may name the caller, as 10.0.0.0/8 (repeatable)")
	fs.StringVar(&f.presenceFile, "presence-token-file", "", "file with the token that opens /presence, at least 32 characters")
	fs.StringVar(&f.redis, "redis", "", "Redis that relays of one domain share, as redis://127.0.0.1:6379/0")
	fs.StringVar(&f.redisPassword, "redis-password-file", "", "file with the password of Redis")
	fs.StringVar(&f.internalListen, "internal-listen", "", "address for other relays")
	fs.StringVar(&f.internalURL, "internal-url", "", "where other relays reach that address, as http://10.0.0.2:8081")
	fs.StringVar(&f.secretFile, "secret-file", "", "file with the secret that the relays share, at least 32 bytes")
	fs.StringVar(&f.metricsAt, "metrics-listen", "", "address for /metrics, as Prometheus reads it")
	return c
}

// minSharedSecret is the least of a secret that relays share, in bytes.
const minSharedSecret = 32

// check finds what does not go together.
func (f *relayFlags) check() error {
	const next = "osaurus relay serve --help"
	together := []string{f.redis, f.internalListen, f.internalURL, f.secretFile}
	set := 0
	for _, value := range together {
		if value != "" {
			set++
		}
	}
	switch {
	case set != 0 && set != len(together):
		return usage(next, "--redis, --internal-listen, --internal-url and --secret-file go together")
	case f.redisPassword != "" && f.redis == "":
		return usage(next, "--redis-password-file needs --redis")
	}
	if u, err := url.Parse(f.internalURL); f.internalURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/") {
		return usage(next, "--internal-url must be like http://10.0.0.2:8081")
	}
	if strings.ContainsAny(f.domain, "/ @?#") {
		return usage(next, "--domain must be a name, with a port where it needs one")
	}
	return nil
}

// secretFrom reads a secret out of a file that only its owner can read.
func secretFrom(path string, least int) (secret.Bytes, error) {
	if path == "" {
		return secret.Bytes{}, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return secret.Bytes{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, usage("chmod 600 "+quoted(path), "%s can be read by others", path)
	}
	const most = 4096
	raw, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return secret.Bytes{}, err
	}
	value := secret.New(bytes.TrimSpace(raw))
	clear(raw)
	if value.Len() < least || value.Len() > most {
		value.Destroy()
		return secret.Bytes{}, usage("", "%s must hold %d to %d characters", path, least, most)
	}
	return value, nil
}

// relayConfig reads the flags and the files they name.
func (a *app) relayConfig(f relayFlags) (c server.Config, err error) {
	if f.domain == "" {
		f.domain = a.Getenv("BASE_DOMAIN")
	}
	if err := f.check(); err != nil {
		return c, err
	}
	level := slog.LevelInfo
	if a.quiet {
		level = slog.LevelWarn
	}
	c = server.Config{Domain: f.domain, Region: f.region, Log: slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: level}))}
	for _, text := range f.trustProxy {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return c, usage("osaurus relay serve --help", "--trust-proxy must be a network, as 10.0.0.0/8")
		}
		c.TrustProxy = append(c.TrustProxy, p.Masked())
	}
	const minToken = 32
	if c.PresenceToken, err = secretFrom(f.presenceFile, minToken); err != nil {
		return c, err
	}
	c.InternalSecret, err = secretFrom(f.secretFile, minSharedSecret)
	return c, err
}

// relayServe runs until it is interrupted, and drains.
func (a *app) relayServe(ctx context.Context, f relayFlags) (err error) {
	c, err := a.relayConfig(f)
	if err != nil {
		return err
	}
	defer c.PresenceToken.Destroy()
	defer c.InternalSecret.Destroy()
	var sites []relaySite
	defer func() {
		for _, s := range sites {
			if s.l != nil {
				_ = s.l.Close() // the server may have done so
			}
		}
	}()
	for _, at := range []string{f.listen, f.internalListen, f.metricsAt} {
		if at == "" {
			sites = append(sites, relaySite{})
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", at)
		if err != nil {
			return err
		}
		sites = append(sites, relaySite{l: l})
	}
	if c.Domain == "" {
		c.Domain = server.DefaultDomain
	}
	if f.redis != "" {
		d, err := a.openDirectory(f, &c)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
	}
	s := server.New(c)
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", s.Metrics())
	sites[0].h, sites[1].h, sites[2].h = s, s.Internal(), metrics
	a.relayGreet(s, c.Domain, sites)
	return a.relayRun(ctx, s, sites)
}

// openDirectory joins the other relays of the domain.
func (a *app) openDirectory(f relayFlags, c *server.Config) (*redis.Directory, error) {
	password, err := secretFrom(f.redisPassword, 1)
	if err != nil {
		return nil, err
	}
	defer password.Destroy()
	c.Machine = server.NewMachine()
	d, err := redis.Open(redis.Options{URL: f.redis, Password: password, Machine: c.Machine, InternalURL: strings.TrimSuffix(f.internalURL, "/")})
	if err != nil {
		return nil, usage("osaurus relay serve --help", "%s", err)
	}
	c.Directory = d
	return d, nil
}

// relaySite is one listener and what answers there.
type relaySite struct {
	l net.Listener
	h http.Handler
}

// relayGreet says where the relay is and what to do next.
func (a *app) relayGreet(s *server.Server, domain string, sites []relaySite) {
	at := sites[0].l.Addr().String()
	if a.json {
		a.print(map[string]any{"event": "relaying", "listen": at, "domain": domain, "machine": s.Machine()})
		return
	}
	a.say("%s at %s, for agents below %s", a.term.paint(green, "Relaying"), a.term.paint(bold, "http://"+at), domain)
	if sites[1].l != nil {
		a.say("  other relays at http://%s", sites[1].l.Addr())
	}
	if sites[2].l != nil {
		a.say("  metrics at http://%s/metrics", sites[2].l.Addr())
	}
	a.say("On a host, to be reached through this relay:\n  osaurus settings set relay_domain=%s", domain)
	a.say("Its health:\n  curl http://%s/health\nCtrl-C drains it: requests under way have 20 seconds.", at)
}

// relayRun serves until ctx ends or a listener fails, then drains.
func (a *app) relayRun(ctx context.Context, s *server.Server, sites []relaySite) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	failed := make(chan error, len(sites))
	var servers []*http.Server
	for _, site := range sites {
		if site.l == nil {
			continue
		}
		srv := s.HTTP(site.h)
		servers = append(servers, srv)
		go func() { failed <- srv.Serve(site.l) }()
	}
	var err error
	select {
	case <-ctx.Done():
		a.say("Draining.")
	case err = <-failed:
	}
	s.Drain(context.WithoutCancel(ctx))
	const last = 5 * time.Second
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), last)
	defer cancel()
	for _, srv := range servers {
		if srv.Shutdown(end) != nil {
			err = errors.Join(err, srv.Close())
		}
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("the relay failed: %w", err)
	}
	a.say("Stopped.")
	return nil
}

// relayCommands holds what has to do with relays.
func (a *app) relayCommands(root *cobra.Command) {
	root.AddCommand(parent("host", "relay", "Reach your agents through a relay, or run one", a.relayServeCommand()))
}
