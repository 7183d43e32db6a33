package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// linkedModules reads out of programs which modules are in them. What is
// replaced or has no version cannot be named to anybody.
func linkedModules(programs files) (map[string]string, error) {
	linked := map[string]string{}
	for _, name := range programs.names() {
		info, err := buildinfo.Read(bytes.NewReader(programs[name]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, m := range info.Deps {
			if m.Replace != nil || m.Version == "" {
				return nil, fmt.Errorf("%s: %s is replaced or has no version", name, m.Path)
			}
			linked[m.Path] = m.Version
		}
	}
	return linked, nil
}

// moduleDirs is where the module cache has each module; "std" is the library of
// the toolchain.
func moduleDirs(tree string, env []string) (map[string]string, error) {
	list, err := output(tree, env, "go", "list", "-m", "-f", "{{.Path}}\t{{.Dir}}", "all")
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for line := range strings.Lines(list) {
		if path, dir, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			dirs[path] = dir
		}
	}
	dirs["std"], err = output(tree, env, "go", "env", "GOROOT")
	return dirs, err
}

// licence is what one module says of how it may be used.
type licence struct {
	module, version string
	ids             []string // SPDX
	texts           files    // by path within the module
}

type licences []licence

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)([.-].*)?$`)

// licencesOf collects the texts of every linked module and of Go itself. A
// module without one, or with one that is not recognised, ends the release: a
// person has to look.
func licencesOf(linked, dirs map[string]string) (licences, error) {
	var all licences
	modules := maps.Clone(linked)
	modules["std"] = toolchain
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		l := licence{module: path, version: modules[path], texts: files{}}
		dir := dirs[path]
		if dir == "" {
			return nil, fmt.Errorf("%s is linked, but the module cache does not have it", path)
		}
		if err := l.collect(dir); err != nil {
			return nil, err
		}
		for _, name := range l.texts.names() {
			l.ids = append(l.ids, spdx(l.texts[name])...)
		}
		if len(l.ids) == 0 {
			return nil, fmt.Errorf("%s: no licence was recognised among %v", path, l.texts.names())
		}
		slices.Sort(l.ids)
		l.ids = slices.Compact(l.ids)
		all = append(all, l)
	}
	return all, nil
}

func (l *licence) collect(dir string) error {
	return filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if at != dir && (l.module == "std" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !licenceFile.MatchString(d.Name()) || strings.HasSuffix(d.Name(), ".go") {
			return nil
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		l.texts[filepath.ToSlash(rel)], err = os.ReadFile(at)
		return err
	})
}

// phrases tell licences apart. One file may hold several.
var phrases = []struct{ id, phrase string }{
	{"Apache-2.0", "apache license version 2.0"},
	{"MPL-2.0", "mozilla public license version 2.0"},
	{"ISC", "permission to use, copy, modify, and distribute this software for any purpose with or without fee"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"},
	{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy"},
	{"BSD-3-Clause", "may be used to endorse or promote products derived from this software"},
	{"BSD-3-Clause", "neither the name of"},
	{"BSD-2-Clause", "redistributions in binary form must reproduce the above copyright notice"},
	{"blessing", "in place of a legal notice, here is a blessing"},
	{"CC0-1.0", "cc0 1.0 universal"},
	{"Unlicense", "this is free and unencumbered software"},
}

var spaces = regexp.MustCompile(`[\s,]+`)

// spdx names licences by what they say; none when it is none of those we know.
func spdx(text []byte) (ids []string) {
	plain := spaces.ReplaceAllString(strings.ToLower(string(text)), " ")
	for _, p := range phrases {
		longer := p.id == "BSD-2-Clause" && slices.Contains(ids, "BSD-3-Clause")
		if !longer && strings.Contains(plain, spaces.ReplaceAllString(p.phrase, " ")) {
			ids = append(ids, p.id)
		}
	}
	return ids
}

// text is one file with all of them.
func (all licences) text(program string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "What is linked into %s, and the licences it comes under.\n", program)
	for _, l := range all {
		fmt.Fprintf(&b, "\n%s\n%s %s (%s)\n", strings.Repeat("=", 78), l.module, l.version, strings.Join(l.ids, ", "))
		for _, name := range l.texts.names() {
			fmt.Fprintf(&b, "%s\n%s\n\n%s\n", strings.Repeat("-", 78), name, bytes.TrimSpace(l.texts[name]))
		}
	}
	return b.Bytes()
}
