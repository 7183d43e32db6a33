package channel

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// inner reads req, closes its body and writes what will be sealed to *plain.
// repeat says that running the request twice does no harm. Errors:
// ErrForeignURL, ErrTooLarge, ErrMalformed, or the body's.
func (t *Transport) inner(plain *[]byte, req *http.Request) (repeat bool, err error) {
	body := borrow(0)
	defer wipe(body)
	if *body, err = readRequestBody(*body, req); err != nil {
		return false, err
	}
	in, err := t.innerRequest(req)
	if err != nil {
		return false, err
	}
	in.body = *body
	text, err := appendInnerRequest(slices.Grow(*plain, len(in.body)*4/3+1024), in)
	if err != nil {
		return false, err
	}
	*plain = text
	return repeatable(in), nil
}

// innerRequest is req without its body.
func (t *Transport) innerRequest(req *http.Request) (*innerRequest, error) {
	path, ok := t.path(req.URL)
	if !ok {
		return nil, ErrForeignURL
	}
	in := &innerRequest{method: cmp.Or(req.Method, http.MethodGet), path: path}
	for name, values := range req.Header {
		value := strings.Join(values, ", ")
		switch {
		case len(values) == 0:
		case name == "Authorization":
			in.authorization = value
		case name == "Accept":
			in.accept = value
		case name == "Content-Type":
			in.contentType = value
		case !reserved(name):
			in.headers = append(in.headers, header{name, value})
		}
	}
	if in.method == http.MethodPost && starts(path) && req.Header.Get(idempotencyHeader) == "" {
		key, err := randomText(t.config.Rand, idempotencySize)
		if err != nil {
			return nil, err
		}
		in.headers = append(in.headers, header{idempotencyHeader, key})
	}
	slices.SortFunc(in.headers, func(a, b header) int { return strings.Compare(a.name, b.name) })
	return in, nil
}

// repeatable reports whether running the request twice does no harm.
func repeatable(in *innerRequest) bool {
	return in.method == http.MethodGet || in.method == http.MethodHead ||
		slices.ContainsFunc(in.headers, func(h header) bool { return h.name == idempotencyHeader })
}

func readRequestBody(dst []byte, req *http.Request) ([]byte, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return dst, nil
	}
	body, err := readAll(dst, req.Body, req.ContentLength, maxCall)
	if closeErr := req.Body.Close(); err == nil {
		err = closeErr
	}
	return body, err
}

// path is the request target below the peer's own prefix.
func (t *Transport) path(u *url.URL) (string, bool) {
	peer := t.config.Peer
	if !strings.EqualFold(u.Scheme, peer.Scheme) || !strings.EqualFold(hostPort(u), hostPort(peer)) || u.User != nil {
		return "", false
	}
	rest, ok := strings.CutPrefix(u.RequestURI(), t.prefix)
	switch {
	case !ok:
		return "", false
	case rest == "" || rest[0] == '?':
		return "/" + rest, true
	default:
		return rest, rest[0] == '/'
	}
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if strings.EqualFold(u.Scheme, "https") {
		return u.Host + ":443"
	}
	return u.Host + ":80"
}

// starts reports whether a path begins a run or a dispatched task, which must
// not happen twice.
func starts(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	parts := strings.Split(trimRoutePrefix(path), "/")
	return len(parts) == 4 && parts[1] == "agents" && (parts[3] == "run" || parts[3] == "dispatch")
}
