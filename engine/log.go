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
	if e.savedHead, err = e.loadHead(ctx); err != nil {
		return err
	}
	if e.log.Head().Seq < e.savedHead.Seq {
		return errLogCut
	}
	return nil
}

// errLogCut stays until the owner has looked: the saved head is not replaced.
var errLogCut = errors.New("the security log is shorter than it was: lines were cut off its end")

// loadHead returns the head that was saved last; zero when there was none.
func (e *Engine) loadHead(ctx context.Context) (head eventlog.Head, err error) {
	raw, err := e.store.Get(ctx, engineService, logHeadAccount)
	if errors.Is(err, fault.KeyNotFound) {
		return head, nil
	}
	if err != nil {
		return head, err
	}
	defer raw.Destroy()
	if json.Unmarshal(raw.Expose(), &head) != nil {
		err = fault.New(fault.StateCorrupt, errors.New("the saved head of the log does not parse"))
	}
	return head, err
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
	if e.log == nil || e.log.Head() == e.savedHead || errors.Is(e.logErr, errLogCut) {
		return nil
	}
	head := e.log.Head()
	raw, err := json.Marshal(head)
	if err != nil {
		return err
	}
	value := secret.Take(raw)
	defer value.Destroy()
	if err := e.store.Put(ctx, engineService, logHeadAccount, value); err != nil {
		return err
	}
	e.savedHead = head
	return nil
}

// VerifyLog checks the whole security log against its key and last saved head.
func (e *Engine) VerifyLog(ctx context.Context) (eventlog.Head, error) {
	key, err := e.store.Get(ctx, engineService, logKeyAccount)
	if err != nil {
		return eventlog.Head{}, err
	}
	defer key.Destroy()
	head, err := e.loadHead(ctx)
	if err != nil {
		return eventlog.Head{}, err
	}
	return eventlog.Verify(e.path(logFile), key, head)
}

// LogPath returns where the security log stands.
func (e *Engine) LogPath() string { return e.path(logFile) }
