// Command probe asks the bridge from inside a guest, as no honest program
// would: any head, any token, any size. It prints the status and the body.
// With -times it asks that often on one connection, after a first call that
// opens it, and prints the microseconds of each; anything but 200 ends it.
//
// Usage:
//
//	probe [-token TOKEN | -token-file FILE] [-header 'Name: value']… [-size N [-chunked]] [-times N] METHOD PATH [BODY]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

const socket = "/tmp/osaurus-bridge.sock"

func main() {
	q := request{head: http.Header{}}
	token := flag.String("token", "", "")
	file := flag.String("token-file", "", "")
	times := flag.Int("times", 0, "print what this many calls take")
	flag.Int64Var(&q.size, "size", -1, "send this many bytes instead of BODY")
	flag.BoolVar(&q.chunked, "chunked", false, "do not declare the length")
	flag.Func("header", "", func(s string) error {
		name, value, _ := strings.Cut(s, ":")
		q.head.Add(name, strings.TrimSpace(value))
		return nil
	})
	flag.Parse()
	if err := q.authorize(*token, *file); err != nil {
		fail(err)
	}
	if *times > 0 {
		measure(q, *times)
		return
	}
	status, err := q.ask()
	// A refusal while the body is on its way may be lost with the connection.
	for try := 0; try < 5 && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)); try++ {
		status, err = q.ask()
	}
	if err != nil {
		fail(err)
	}
	fmt.Println(status)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(1)
}

func measure(q request, times int) {
	took := make([]time.Duration, 0, times+1)
	for range times + 1 {
		began := time.Now()
		status, err := q.ask()
		if err == nil && !strings.HasPrefix(status, "200 ") {
			err = errors.New(status)
		}
		if err != nil {
			fail(err)
		}
		took = append(took, time.Since(began))
	}
	for _, t := range took[1:] {
		fmt.Println(t.Microseconds())
	}
}

// client keeps its connection.
var client = http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", socket)
}}}

type request struct {
	head    http.Header
	size    int64 // -1 sends the argument
	chunked bool
}

func (q request) authorize(token, file string) error {
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		token = string(raw)
	}
	if token != "" {
		q.head.Set("Authorization", "Bearer "+token)
	}
	return nil
}

func (q request) ask() (string, error) {
	var body io.Reader = strings.NewReader(flag.Arg(2))
	length := int64(len(flag.Arg(2)))
	if q.size >= 0 {
		body, length = io.LimitReader(spaces{}, q.size), q.size
	}
	r, err := http.NewRequestWithContext(context.Background(), flag.Arg(0), "http://localhost"+flag.Arg(1), io.NopCloser(body))
	if err != nil {
		return "", err
	}
	r.Header, r.ContentLength = q.head.Clone(), length
	if q.chunked {
		r.ContentLength = -1
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	raw, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, raw), errors.Join(err, resp.Body.Close())
}

// spaces reads as blanks without end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
