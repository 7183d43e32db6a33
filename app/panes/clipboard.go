package panes

import (
	"time"

	"osaurus/engine/secret"
)

// ClearAfter is how long a copied secret stays on the pasteboard, if nothing
// else is copied meanwhile.
const ClearAfter = 60 * time.Second

// Clipboard is the system's pasteboard.
type Clipboard interface {
	Read() string
	Write(text string)
}

// CopySecret puts the secret that shows on the pasteboard and clears it after
// ClearAfter, unless something else is there by then. It is for renderers
// whose CopySecret effect runs in this process.
func (m *Model) CopySecret() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sheet == nil || m.sheet.Secret == nil || m.env.Clipboard == nil {
		return
	}
	copied := secret.New([]byte(m.sheet.Secret.Text()))
	m.env.Clipboard.Write(string(copied.Expose()))
	m.work.Go(func() {
		defer copied.Destroy()
		wait := time.NewTimer(ClearAfter)
		defer wait.Stop()
		select {
		case <-m.ctx.Done(): // the process ends: what was copied goes with it
		case <-wait.C:
		}
		there := secret.New([]byte(m.env.Clipboard.Read()))
		defer there.Destroy()
		if there.Equal(copied) {
			m.env.Clipboard.Write("")
		}
	})
}
