package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"runtime/pprof"
	"slices"
	"strconv"
	"time"

	"osaurus/engine/fault"
)

// MaxProfile is how long a profile may take, in seconds.
const MaxProfile = 300

// ProfileKinds are the profiles a host gives: the processor's, taken over some
// seconds, and those the runtime keeps.
var ProfileKinds = []string{"cpu", "heap", "allocs", "goroutine", "mutex", "block", "threadcreate"}

// profilePath is where pprof's own tools look. It stands on this socket alone:
// net/http/pprof, which adds itself to a mux of everybody's, is linked nowhere.
const profilePath = "/debug/pprof/"

func (s *Server) profileOps() {
	s.mux.HandleFunc("GET "+profilePath+"{kind}", func(w http.ResponseWriter, r *http.Request) {
		kind := r.PathValue("kind")
		if kind == "profile" { // pprof's name for it
			kind = "cpu"
		}
		seconds, err := strconv.Atoi(r.FormValue("seconds"))
		if r.FormValue("seconds") == "" {
			seconds, err = 30, nil
		}
		switch {
		case !slices.Contains(ProfileKinds, kind):
			err = fault.WithText(fault.Usage, "no such profile")
		case err != nil || seconds < 1 || seconds > MaxProfile:
			err = fault.WithText(fault.Usage, "a profile takes 1 to "+strconv.Itoa(MaxProfile)+" seconds")
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			err = profile(r.Context(), w, kind, time.Duration(seconds)*time.Second)
		}
		if err != nil {
			refuse(w, err)
		}
	})
}

// profile writes one profile. The runtime takes one of the processor at a time.
func profile(ctx context.Context, w io.Writer, kind string, length time.Duration) error {
	if kind != "cpu" {
		return pprof.Lookup(kind).WriteTo(w, 0)
	}
	if err := pprof.StartCPUProfile(w); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	end := time.NewTimer(length)
	defer end.Stop()
	select {
	case <-end.C:
	case <-ctx.Done():
	}
	return nil
}

// Profile writes a profile of the running host, gzipped as pprof reads it.
// Seconds count for the one of the processor. It holds names of functions and
// counts, nothing that was talked about.
func (c *Client) Profile(ctx context.Context, kind string, seconds int, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://control"+profilePath+url.PathEscape(kind)+"?seconds="+strconv.Itoa(seconds), nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, resp.Body)
	return errors.Join(err, resp.Body.Close())
}
