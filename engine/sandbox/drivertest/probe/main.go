// Command probe asks the bridge from inside a guest, as no honest program
// would: any head, any token, any size. It prints the status and the body.
//
// Usage:
//
//	probe [-token TOKEN | -token-file FILE] [-header 'Name: value']… [-size N [-chunked]] METHOD PATH [BODY]
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
)

const socket = "/tmp/osaurus-bridge.sock"

func main() {
	head := http.Header{}
	token := flag.String("token", "", "")
	file := flag.String("token-file", "", "")
	size := flag.Int64("size", -1, "send this many bytes instead of BODY")
	chunked := flag.Bool("chunked", false, "do not declare the length")
	flag.Func("header", "", func(s string) error {
		name, value, _ := strings.Cut(s, ":")
		head.Add(name, strings.TrimSpace(value))
		return nil
	})
	flag.Parse()
	status, err := ask(head, *token, *file, *size, *chunked)
	// A refusal while the body is on its way may be lost with the connection.
	for try := 0; try < 5 && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)); try++ {
		status, err = ask(head, *token, *file, *size, *chunked)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	fmt.Println(status)
}

func ask(head http.Header, token, file string, size int64, chunked bool) (string, error) {
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		token = string(raw)
	}
	var body io.Reader = strings.NewReader(flag.Arg(2))
	length := int64(len(flag.Arg(2)))
	if size >= 0 {
		body, length = io.LimitReader(spaces{}, size), size
	}
	r, err := http.NewRequestWithContext(context.Background(), flag.Arg(0), "http://localhost"+flag.Arg(1), io.NopCloser(body))
	if err != nil {
		return "", err
	}
	r.Header, r.ContentLength = head, length
	if chunked {
		r.ContentLength = -1
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	raw, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, raw), err
}

// spaces reads as blanks without end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
