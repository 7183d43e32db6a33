// Command bundle lays out Osaurus.app and, on a Mac, signs and notarises it.
//
// Usage:
//
//	bundle -exe build/Osaurus -version 1.2.3 -out build/Osaurus.app
//	bundle -sign "Developer ID Application: …" -profile P -team ID -notary PROFILE -out build/Osaurus.app
//
// Laying out works on every system. The rest runs codesign, ditto and xcrun,
// and was not run here: -print shows the commands instead.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"howett.net/plist"
)

// options are what the flags say.
type options struct {
	root, exe, icons, version, out  string
	identity, profile, team, notary string
	print                           bool
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", ".", "directory of Info.plist and resources")
	flag.StringVar(&o.exe, "exe", "", "the program; none means that the bundle is there already")
	flag.StringVar(&o.icons, "icons", "build/icons", "what scripts/icons drew")
	flag.StringVar(&o.version, "version", "", "major.minor.patch")
	flag.StringVar(&o.out, "out", "build/Osaurus.app", "the bundle")
	flag.StringVar(&o.identity, "sign", "", "signing identity; none means no signature")
	flag.StringVar(&o.profile, "profile", "", "provisioning profile to embed")
	flag.StringVar(&o.team, "team", "", "team id, the prefix of the keychain group")
	flag.StringVar(&o.notary, "notary", "", "notarytool's keychain profile; none means no notarisation")
	flag.BoolVar(&o.print, "print", false, "print the commands of signing and run none")
	flag.Parse()
	if err := bundle(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func bundle(o options, out io.Writer) error {
	if o.exe != "" {
		if err := o.layOut(); err != nil {
			return err
		}
	}
	if o.identity == "" {
		return nil
	}
	commands, err := o.signing()
	if err != nil {
		return err
	}
	for _, c := range commands {
		if _, err := fmt.Fprintln(out, strings.Join(c, " ")); err != nil || o.print {
			continue
		}
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", c[0], err)
		}
	}
	return nil
}

var versionForm = regexp.MustCompile(`^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$`)

// layOut replaces the bundle.
func (o options) layOut() error {
	if !versionForm.MatchString(o.version) {
		return fmt.Errorf("version %q is not major.minor.patch", o.version)
	}
	if filepath.Ext(o.out) != ".app" {
		return errors.New("-out does not end in .app")
	}
	info, err := o.info()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(o.out); err != nil {
		return err
	}
	contents := filepath.Join(o.out, "Contents")
	for _, dir := range []string{"MacOS", "Resources"} {
		if err := os.MkdirAll(filepath.Join(contents, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(contents, "Info.plist"), info, 0o644); err != nil {
		return err
	}
	if err := copyFile(o.exe, filepath.Join(contents, "MacOS", "Osaurus"), 0o755); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(o.icons, "*"))
	if err != nil || len(images) == 0 {
		return fmt.Errorf("no icons in %s: run scripts/icons", o.icons)
	}
	for _, image := range images {
		if err := copyFile(image, filepath.Join(contents, "Resources", filepath.Base(image)), 0o644); err != nil {
			return err
		}
	}
	if o.profile != "" {
		return copyFile(o.profile, filepath.Join(contents, "embedded.provisionprofile"), 0o644)
	}
	return nil
}

// info is Info.plist with the version.
func (o options) info() ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(o.root, "Info.plist"))
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if _, err := plist.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("reading Info.plist: %w", err)
	}
	all["CFBundleShortVersionString"], all["CFBundleVersion"] = o.version, o.version
	return plist.MarshalIndent(all, plist.XMLFormat, "\t")
}

// signing returns the commands that sign, notarise and check, in order, and
// writes the entitlements they name.
func (o options) signing() ([][]string, error) {
	raw, err := os.ReadFile(filepath.Join(o.root, "resources", "entitlements", "osaurus.plist"))
	if err != nil {
		return nil, err
	}
	if o.team == "" || o.profile == "" {
		return nil, errors.New("the entitlements need -team and -profile")
	}
	entitlements, zip := strings.TrimSuffix(o.out, ".app")+".entitlements", strings.TrimSuffix(o.out, ".app")+".zip"
	if err := os.WriteFile(entitlements, bytes.ReplaceAll(raw, []byte("$(TeamIdentifierPrefix)"), []byte(o.team+".")), 0o644); err != nil {
		return nil, err
	}
	commands := [][]string{
		{"codesign", "--force", "--options", "runtime", "--timestamp", "--entitlements", entitlements, "--sign", o.identity, o.out},
		{"codesign", "--verify", "--strict", "--verbose=2", o.out},
	}
	if o.notary != "" {
		commands = append(commands,
			[]string{"ditto", "-c", "-k", "--keepParent", o.out, zip},
			[]string{"xcrun", "notarytool", "submit", zip, "--keychain-profile", o.notary, "--wait"},
			[]string{"xcrun", "stapler", "staple", o.out},
			[]string{"spctl", "-a", "-vv", o.out})
	}
	return commands, nil
}

func copyFile(from, to string, mode os.FileMode) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, mode)
}
