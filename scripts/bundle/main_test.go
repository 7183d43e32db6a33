package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"howett.net/plist"

	"osaurus/engine/discovery"
)

func read(t *testing.T, name string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if _, err := plist.Unmarshal(raw, &all); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return all
}

func TestInfo(t *testing.T) {
	t.Parallel()
	info := read(t, "../../Info.plist")
	for key, want := range map[string]any{
		"CFBundleIdentifier": "com.osaurus.host", "CFBundleExecutable": "Osaurus", "CFBundlePackageType": "APPL", "CFBundleIconFile": "Osaurus",
		"LSMinimumSystemVersion": "13.0", "LSUIElement": true, "NSHighResolutionCapable": true,
		"NSBonjourServices": []any{discovery.ServiceType},
	} {
		if !reflect.DeepEqual(info[key], want) {
			t.Errorf("%s is %v, want %v", key, info[key], want)
		}
	}
	if s, ok := info["NSLocalNetworkUsageDescription"].(string); !ok || s == "" {
		t.Error("macOS asks for the local network without a reason")
	}
	types, ok := info["CFBundleURLTypes"].([]any)
	if !ok || len(types) != 1 || !reflect.DeepEqual(types[0].(map[string]any)["CFBundleURLSchemes"], []any{"osaurus"}) {
		t.Errorf("the links are %v", info["CFBundleURLTypes"])
	}
}

// TestEntitlements: what the code asks for, and nothing that weakens it.
func TestEntitlements(t *testing.T) {
	t.Parallel()
	got := read(t, "../../resources/entitlements/osaurus.plist")
	const id = "$(TeamIdentifierPrefix)com.osaurus.host"
	want := map[string]any{"com.apple.application-identifier": id, "keychain-access-groups": []any{id}, "com.apple.security.virtualization": true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("entitlements are %v", got)
	}
}

func options1(t *testing.T) options {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"exe": "program", "icons/Osaurus.icns": "icns", "icons/menubar-plainTemplate.png": "png", "profile": "profile"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return options{root: "../..", exe: filepath.Join(dir, "exe"), icons: filepath.Join(dir, "icons"), version: "1.2.3", out: filepath.Join(dir, "Osaurus.app"), profile: filepath.Join(dir, "profile")}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	o := options1(t)
	left := filepath.Join(o.out, "left over")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := bundle(o, os.Stdout); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("an older bundle was not replaced")
	}
	for name, mode := range map[string]os.FileMode{"MacOS/Osaurus": 0o755, "Resources/Osaurus.icns": 0o644, "Resources/menubar-plainTemplate.png": 0o644, "embedded.provisionprofile": 0o644} {
		info, err := os.Stat(filepath.Join(o.out, "Contents", name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v", name, err)
		}
	}
	info := read(t, filepath.Join(o.out, "Contents", "Info.plist"))
	if info["CFBundleShortVersionString"] != "1.2.3" || info["CFBundleVersion"] != "1.2.3" || info["LSUIElement"] != true {
		t.Errorf("Info.plist is %v", info)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*options){
		"version": func(o *options) { o.version = "1.2" }, "a place that is no bundle": func(o *options) { o.out += ".zip" },
		"no icons": func(o *options) { o.icons += "x" }, "no program": func(o *options) { o.exe += "x" }, "no root": func(o *options) { o.root = o.icons },
		"signing without a team": func(o *options) { o.identity, o.print = "me", true },
	} {
		o := options1(t)
		change(&o)
		if bundle(o, os.Stdout) == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

func TestSigning(t *testing.T) {
	t.Parallel()
	o := options1(t)
	o.identity, o.team, o.notary, o.print = "Developer ID Application: X", "TEAM", "notary", true
	var out bytes.Buffer
	if err := bundle(o, &out); err != nil {
		t.Fatal(err)
	}
	var programs []string
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		programs = append(programs, f[0]+" "+f[1])
	}
	want := []string{"codesign --force", "codesign --verify", "ditto -c", "xcrun notarytool", "xcrun stapler", "spctl -a"}
	if !reflect.DeepEqual(programs, want) {
		t.Errorf("runs %q", programs)
	}
	got := read(t, strings.TrimSuffix(o.out, ".app")+".entitlements")
	if !reflect.DeepEqual(got["keychain-access-groups"], []any{"TEAM.com.osaurus.host"}) {
		t.Errorf("the keychain group is %v", got["keychain-access-groups"])
	}
}
