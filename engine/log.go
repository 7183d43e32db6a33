package engine

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"osaurus/engine/eventlog"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// headInterval is how often the log's head goes to the keystore.
const headInterval = 60 * time.Second

// openLog opens the security log under its key, which is made once.
func (e *Engine) openLog(ctx context.Context) error {
	key, err := e.store.Get(ctx, engineService, logKeyAccount)
	if errors.Is(err, fault.KeyNotFound) {
		if key, err = secret.Random(e.ports.Rand, eventlog.KeySize); err == nil {
			err = e.store.Put(ctx, engineService, logKeyAccount, key)
		}
	}
	if err != nil {
		return err
	}
	defer key.Destroy()
	if e.log, err = eventlog.Open(e.path(logFile), key, eventlog.Options{Now: e.ports.Now}); err != nil {
		return err
	}
	if n := e.log.Torn(); n > 0 {
		e.Event("log_torn_line_cut", slog.Int("bytes", n))
	}
	return nil
}

// Event writes to the security log. A log that cannot be written is said in
// the diagnostic log and by doctor; it does not stop the engine.
func (e *Engine) Event(event string, attrs ...slog.Attr) {
	if e.log == nil {
		return
	}
	if err := e.log.Append(event, attrs...); err != nil {
		e.ports.Logger.Error("security log not written", slog.String("event", event), slog.String("error", err.Error()))
	}
}

func (e *Engine) saveHead(ctx context.Context) error {
	if e.log == nil {
		return nil
	}
	raw, err := json.Marshal(e.log.Head())
	if err != nil {
		return err
	}
	return e.store.Put(ctx, engineService, logHeadAccount, secret.Take(raw))
}

// VerifyLog checks the whole security log against its key and last saved head.
func (e *Engine) VerifyLog(ctx context.Context) (eventlog.Head, error) {
	key, err := e.store.Get(ctx, engineService, logKeyAccount)
	if err != nil {
		return eventlog.Head{}, err
	}
	defer key.Destroy()
	var head eventlog.Head
	raw, err := e.store.Get(ctx, engineService, logHeadAccount)
	switch {
	case err == nil:
		defer raw.Destroy()
		if err := json.Unmarshal(raw.Expose(), &head); err != nil {
			return eventlog.Head{}, fault.New(fault.StateCorrupt, errors.New("the saved head of the log does not parse"))
		}
	case !errors.Is(err, fault.KeyNotFound):
		return eventlog.Head{}, err
	}
	return eventlog.Verify(e.path(logFile), key, head)
}

// LogPath returns where the security log stands.
func (e *Engine) LogPath() string { return e.path(logFile) }
