// Command pins edits engine/sandbox/artifact/pins.json, and writes nothing
// that the program would refuse.
//
// Usage:
//
//	pins list
//	pins set [-source S]... [-max N] [-note T] [-check] NAME PLATFORM HASH|FILE
//
// HASH is a SHA-256, of the index for an image; FILE is hashed. -source names
// where an artifact comes from and is needed for a new record: an image's
// repository, or the URLs of a file. -check fails where something would
// change. The exit status is 1 when it failed and 2 when it was called wrong.
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox/artifact"
)

const path = "engine/sandbox/artifact/pins.json"

func main() {
	if err := run(path, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pins:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

var errUsage = errors.New("want: list, or set NAME PLATFORM HASH|FILE")

// edit is one change to a record.
type edit struct {
	name, platform, sum string
	sources             []string
	max                 int64
	note                string
}

func run(path string, args []string, out io.Writer) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	pins, err := artifact.ParsePins(raw)
	if err != nil {
		return err
	}
	if len(args) == 1 && args[0] == "list" {
		for _, p := range pins {
			if _, err := fmt.Fprintf(out, "%-14s %-12s %s  %s\n", p.Name, p.Platform, p.SHA256, p.Note); err != nil {
				return err
			}
		}
		return nil
	}
	if len(args) == 0 || args[0] != "set" {
		return errUsage
	}
	var e edit
	f := flag.NewFlagSet("pins set", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Func("source", "where it comes from", func(s string) error { e.sources = append(e.sources, s); return nil })
	f.Int64Var(&e.max, "max", 0, "largest size in bytes")
	f.StringVar(&e.note, "note", "", "where the hash comes from")
	check := f.Bool("check", false, "fail where something would change")
	if err := f.Parse(args[1:]); err != nil || f.NArg() != 3 {
		return errUsage
	}
	e.name, e.platform = f.Arg(0), f.Arg(1)
	if e.sum, err = hashOrFile(f.Arg(2)); err != nil {
		return err
	}
	return apply(path, raw, pins, e, *check, out)
}

func apply(path string, raw []byte, pins artifact.Pins, e edit, check bool, out io.Writer) error {
	pins, was, err := e.on(pins)
	if err != nil {
		return err
	}
	changed, err := encode(pins)
	if err != nil {
		return err
	}
	if bytes.Equal(raw, changed) {
		_, err := fmt.Fprintf(out, "%s for %s is pinned to %s\n", e.name, e.platform, e.sum)
		return err
	}
	if check {
		return fmt.Errorf("%s for %s is %s, and pinned to %s", e.name, e.platform, e.sum, was)
	}
	if _, err := artifact.ParsePins(changed); err != nil {
		return err
	}
	if err := atomicfile.Write(path, changed); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s for %s is now pinned to %s; it was %s\n", e.name, e.platform, e.sum, was)
	return err
}

// on changes or adds a record, and returns what was pinned before.
func (e edit) on(pins artifact.Pins) (artifact.Pins, string, error) {
	i := slices.IndexFunc(pins, func(p artifact.Pin) bool { return p.Name == e.name && p.Platform == e.platform })
	if i < 0 {
		if len(e.sources) == 0 {
			return nil, "", fmt.Errorf("%s is not pinned for %s yet: name its -source", e.name, e.platform)
		}
		pins = append(pins, artifact.Pin{Name: e.name, Platform: e.platform, Kind: artifact.File, MaxBytes: artifact.MaxFile})
		i = len(pins) - 1
	}
	p := &pins[i]
	was := cmp.Or(p.SHA256, "not pinned")
	p.SHA256, p.MaxBytes, p.Note = e.sum, cmp.Or(e.max, p.MaxBytes), cmp.Or(e.note, p.Note)
	if len(e.sources) > 0 {
		p.URLs, p.Reference = e.sources, ""
		if !strings.Contains(e.sources[0], "://") && p.Name == artifact.SandboxImage {
			p.Kind, p.URLs, p.Reference = artifact.Index, nil, e.sources[0]
		}
	}
	if p.Kind == artifact.Index {
		repository, _, _ := strings.Cut(p.Reference, "@")
		p.Reference = repository + "@sha256:" + p.SHA256
	}
	slices.SortFunc(pins, func(a, b artifact.Pin) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Platform, b.Platform))
	})
	return pins, was, nil
}

func encode(pins artifact.Pins) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(pins)
	return out.Bytes(), err
}

// hashOrFile takes 64 hexadecimal digits as they are.
func hashOrFile(arg string) (string, error) {
	if raw, err := hex.DecodeString(arg); err == nil && len(raw) == sha256.Size {
		return strings.ToLower(arg), nil
	}
	f, err := os.Open(arg)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}
