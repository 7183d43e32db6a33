package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"osaurus/engine"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/pairing"
	"osaurus/engine/storage"
)

// Limits of the control API.
const (
	maxRequest    = 4 << 20 // bytes
	headerTimeout = 10 * time.Second
	drainTimeout  = 2 * time.Second // for replies under way when the host stops
	maxSocketPath = 100             // bytes; the system allows a little more
)

// Server answers the control API for one engine.
type Server struct {
	engine *engine.Engine
	stop   func() // asks the host to end
	mux    *http.ServeMux
}

// NewServer returns a server; stop is called by the stop operation.
func NewServer(e *engine.Engine, stop func()) *Server {
	s := &Server{engine: e, stop: stop, mux: http.NewServeMux()}
	s.hostOps()
	s.identityOps()
	s.agentOps()
	s.keyOps()
	s.storageOps()
	s.peerOps()
	s.relayOps()
	s.approvalOps()
	s.inviteOps()
	s.sandboxOps()
	s.profileOps()
	return s
}

// ListenSocket opens the socket of a home, ours alone. A socket that nobody
// answers on is what a crash left and is replaced.
func ListenSocket(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the control socket's path has more than %d bytes; choose a shorter home", maxSocketPath)
	}
	if err := atomicfile.MkdirAll(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is not a socket", path)
		}
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
		if err == nil {
			return nil, errors.Join(engine.ErrInUse, c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	// The directory is 0700, so nobody else reaches it before this.
	if err := os.Chmod(path, atomicfile.Mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return ownerOnly{l}, nil
}

// Serve answers on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: s.mux, ReadHeaderTimeout: headerTimeout, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan struct{})
	dismiss := context.AfterFunc(ctx, func() {
		defer close(ended)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if srv.Shutdown(drain) != nil {
			_ = srv.Close() // whoever is left has had the time
		}
	})
	err := srv.Serve(l)
	if !dismiss() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// op registers an operation that takes and returns JSON.
func op[In, Out any](s *Server, name string, f func(ctx context.Context, in In) (Out, error)) {
	s.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		in, err := decode[In](w, r)
		var out Out
		if err == nil {
			out, err = f(r.Context(), in)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		if list := reflect.ValueOf(&out).Elem(); list.Kind() == reflect.Slice && list.IsNil() {
			list.Set(reflect.MakeSlice(list.Type(), 0, 0)) // an empty list, not null
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // a client that is gone cannot be told so
	})
}

// do registers an operation without a reply.
func do[In any](s *Server, name string, f func(ctx context.Context, in In) error) {
	op(s, name, func(ctx context.Context, in In) (Empty, error) { return Empty{}, f(ctx, in) })
}

// lines registers an operation that streams JSON lines. An error before the
// first line is a refusal; a later one ends the stream.
func lines[In, Out any](s *Server, name string, f func(ctx context.Context, in In, emit func(Out) error) error) {
	s.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		in, err := decode[In](w, r)
		started := false
		control, enc := http.NewResponseController(w), json.NewEncoder(w)
		start := func() {
			if !started {
				started = true
				w.Header().Set("Content-Type", "application/x-ndjson")
			}
		}
		if err == nil {
			err = f(r.Context(), in, func(out Out) error {
				start()
				if err := enc.Encode(out); err != nil {
					return err
				}
				return control.Flush()
			})
		}
		if err != nil && !started {
			refuse(w, err)
		}
	})
}

func decode[In any](w http.ResponseWriter, r *http.Request) (In, error) {
	var in In
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return in, fault.WithText(fault.Usage, "the control request does not parse")
	}
	return in, nil
}

func refuse(w http.ResponseWriter, err error) {
	e := describe(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_ = json.NewEncoder(w).Encode(e) // a client that is gone cannot be told so
}

// Exit codes, decisions D25.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitLocked      = 3
	exitUnreachable = 4
	exitIntegrity   = 5
	exitConfirm     = 6
)

var exits = map[fault.Code]int{
	fault.Usage: exitUsage, fault.InvalidAgentID: exitUsage, fault.AgentNotFound: exitUsage, fault.InvalidPhrase: exitUsage,
	fault.NoMaster: exitLocked, fault.KeyNotFound: exitLocked, fault.KeystoreLocked: exitLocked, fault.HostIdentityUnavailable: exitLocked,
	fault.StorageLocked: exitLocked, fault.StorageKeyMissing: exitLocked,
	fault.StoreDamaged: exitIntegrity, fault.StoreMissing: exitIntegrity, fault.StorePlaintext: exitIntegrity,
	fault.StateCorrupt: exitIntegrity, fault.KeystoreCorrupt: exitIntegrity, fault.ArtifactDamaged: exitIntegrity,
	fault.NeedsConfirmation: exitConfirm, fault.ForeignPhrase: exitConfirm,
}

// names are for codes that have none on the wire, where only their text stands.
var names = map[fault.Code]string{fault.HostIdentityUnavailable: "identity_unavailable", fault.UnknownAgentAddress: "unknown_agent_address"}

// system reports whether an error that looks like the network's is one of the
// system itself, as those about files are.
func system(err error) bool {
	_, ok := err.(syscall.Errno) //nolint:errorlint // what it wraps is the network's
	return ok
}

// describe turns an error into what the owner reads. The owner may see causes;
// none of ours holds a secret.
func describe(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Code: "failed", Message: err.Error(), Exit: exitFailed}
	code := fault.Of(err).Code
	if errors.Is(err, fault.Internal) || code != fault.Internal {
		e.Code = cmp.Or(code.Name(), names[code], e.Code)
	}
	if exit, ok := exits[code]; ok {
		e.Exit = exit
	}
	if _, ok := errors.AsType[*pairing.Refused](err); ok {
		e.Code = "refused"
	}
	if n, ok := errors.AsType[net.Error](err); ok && !system(n) && e.Exit != exitLocked { // a keystore may be behind a socket too
		e.Code, e.Exit = "unreachable", exitUnreachable
	}
	if kind, text := storage.DiskTrouble(err); kind != "" {
		e.Code, e.Exit = kind, exitFailed
		if !strings.Contains(e.Message, text) {
			e.Message = text + ": " + e.Message
		}
	}
	describeRelay(e, err)
	if foreign, ok := errors.AsType[*identity.ForeignPhraseError](err); ok {
		e.Message = foreign.Error()
	}
	return e
}
