// Package redis is a directory of relays in Redis (PROTOCOL.md of
// engine/relay/server, section 2): agent:<address> is the machine that carries
// an agent, relay:<machine> where that machine is reached, seen:<address> when
// the agent was last there.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"osaurus/engine/address"
	"osaurus/engine/relay/server"
	"osaurus/engine/secret"
)

// How long entries stand (decisions D22).
const (
	ownerLifetime = 120 * time.Second
	seenLifetime  = 30 * 24 * time.Hour
)

// opTime bounds one reply of Redis, below what the relay waits in all.
const opTime = 500 * time.Millisecond

// Directory implements server.Directory.
type Directory struct {
	c       *redis.Client
	machine string
	url     string
	now     func() time.Time
}

var _ server.Directory = (*Directory)(nil)

// Options are who this relay is to others.
type Options struct {
	URL         string       // redis://host:port/db, or rediss:// for TLS; without a password
	Password    secret.Bytes // empty for none
	Machine     string
	InternalURL string // where other relays reach this one
	Now         func() time.Time
}

// quiet takes the library's own lines: the relay says once that Redis does not
// answer, in its own log.
type quiet struct{}

// Printf implements the library's logger.
func (quiet) Printf(context.Context, string, ...any) {}

var silence = sync.OnceFunc(func() { redis.SetLogger(quiet{}) })

// errPassword keeps passwords out of process lists.
var errPassword = errors.New("a Redis URL may not contain a password: put it in a file")

// Open returns a directory. It does not connect yet: Redis may come later.
func Open(o Options) (*Directory, error) {
	silence()
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("the Redis URL does not parse") // the error would repeat it
	}
	if _, has := u.User.Password(); has {
		return nil, errPassword
	}
	opt, err := redis.ParseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the Redis URL: %w", err)
	}
	if opt.TLSConfig != nil {
		opt.TLSConfig.MinVersion = tls.VersionTLS12
	}
	if opt.Password = string(o.Password.Expose()); opt.Username != "" && opt.Password == "" {
		return nil, errors.New("the Redis URL names a user, so a password is needed")
	}
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout, opt.PoolTimeout = opTime, opTime, opTime, opTime
	opt.MaxRetries, opt.DialerRetries, opt.PoolSize, opt.DisableIdentity, opt.ContextTimeoutEnabled = 1, 1, 8, true, true
	opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Directory{c: redis.NewClient(opt), machine: o.Machine, url: o.InternalURL, now: o.Now}, nil
}

// Close ends the connections.
func (d *Directory) Close() error { return d.c.Close() }

func ownerKey(a address.Address) string { return "agent:" + a.Lower() }
func seenKey(a address.Address) string  { return "seen:" + a.Lower() }
func placeKey(machine string) string    { return "relay:" + machine }

func keys(addrs []address.Address, key func(address.Address) string) []string {
	all := make([]string, len(addrs))
	for i, a := range addrs {
		all[i] = key(a)
	}
	return all
}

// Announce implements server.Directory.
func (d *Directory) Announce(ctx context.Context) error {
	return d.c.Set(ctx, placeKey(d.machine), d.url, ownerLifetime).Err()
}

// Withdraw implements server.Directory.
func (d *Directory) Withdraw(ctx context.Context) error {
	return d.c.Del(ctx, placeKey(d.machine)).Err()
}

// Claim implements server.Directory. The newest tunnel owns the address.
func (d *Directory) Claim(ctx context.Context, addrs []address.Address) error {
	_, err := d.c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, a := range addrs {
			p.Set(ctx, ownerKey(a), d.machine, ownerLifetime)
		}
		d.noteSeen(ctx, p, addrs)
		return nil
	})
	return err
}

func (d *Directory) noteSeen(ctx context.Context, p redis.Pipeliner, addrs []address.Address) {
	now := d.now().UnixMilli()
	for _, a := range addrs {
		p.Set(ctx, seenKey(a), now, seenLifetime)
	}
}

// refreshScript keeps what is ours or nobody's and returns the places, from 1,
// of what is another's.
var refreshScript = redis.NewScript(`
local lost = {}
for i, key in ipairs(KEYS) do
  local owner = redis.call('GET', key)
  if owner == false or owner == ARGV[1] then
    redis.call('SET', key, ARGV[1], 'EX', ARGV[2])
  else
    lost[#lost + 1] = i
  end
end
return lost`)

// Refresh implements server.Directory.
func (d *Directory) Refresh(ctx context.Context, addrs []address.Address) ([]address.Address, error) {
	places, err := refreshScript.Run(ctx, d.c, keys(addrs, ownerKey), d.machine, int(ownerLifetime.Seconds())).Int64Slice()
	if err != nil {
		return nil, err
	}
	another := map[int64]bool{}
	for _, i := range places {
		another[i] = true
	}
	var lost, kept []address.Address
	for i, a := range addrs {
		if another[int64(i)+1] {
			lost = append(lost, a)
		} else {
			kept = append(kept, a)
		}
	}
	_, err = d.c.Pipelined(ctx, func(p redis.Pipeliner) error { d.noteSeen(ctx, p, kept); return nil })
	return lost, err
}

// releaseScript deletes what is still ours.
var releaseScript = redis.NewScript(`
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
return 0`)

// Release implements server.Directory.
func (d *Directory) Release(ctx context.Context, addrs []address.Address) error {
	if err := releaseScript.Run(ctx, d.c, keys(addrs, ownerKey), d.machine).Err(); err != nil {
		return err
	}
	_, err := d.c.Pipelined(ctx, func(p redis.Pipeliner) error { d.noteSeen(ctx, p, addrs); return nil })
	return err
}

// Owner implements server.Directory.
func (d *Directory) Owner(ctx context.Context, a address.Address) (machine, at string, err error) {
	machine, err = d.c.Get(ctx, ownerKey(a)).Result()
	if errors.Is(err, redis.Nil) || err != nil || machine == d.machine {
		return machine, "", notNil(err)
	}
	at, err = d.c.Get(ctx, placeKey(machine)).Result()
	return machine, at, notNil(err)
}

func notNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// Presence implements server.Directory.
func (d *Directory) Presence(ctx context.Context, addrs []address.Address) (map[address.Address]server.Presence, error) {
	out := make(map[address.Address]server.Presence, len(addrs))
	if len(addrs) == 0 {
		return out, nil
	}
	var owners, seen *redis.SliceCmd
	_, err := d.c.Pipelined(ctx, func(p redis.Pipeliner) error {
		owners, seen = p.MGet(ctx, keys(addrs, ownerKey)...), p.MGet(ctx, keys(addrs, seenKey)...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, a := range addrs {
		p := server.Presence{Online: owners.Val()[i] != nil}
		if text, ok := seen.Val()[i].(string); ok {
			var ms int64
			if _, err := fmt.Sscan(text, &ms); err == nil {
				p.LastSeen = time.UnixMilli(ms)
			}
		}
		out[a] = p
	}
	return out, nil
}
