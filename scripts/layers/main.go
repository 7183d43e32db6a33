// Command layers draws resources/architecture.svg from the imports of the code:
// a package stands above everything it imports, and a line is an import that no
// other line implies. -check only says whether the picture is current.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const picture = "resources/architecture.svg"

func main() {
	check := flag.Bool("check", false, "write nothing; fail when the picture is not current")
	flag.Parse()
	if err := run(".", *check); err != nil {
		fmt.Fprintln(os.Stderr, "layers:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	g, err := read(root)
	if err != nil {
		return err
	}
	svg, err := g.draw()
	if err != nil {
		return err
	}
	path := filepath.Join(root, filepath.FromSlash(picture))
	if !check {
		return os.WriteFile(path, svg, 0o644)
	}
	kept, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(kept, svg) {
		err = fmt.Errorf("%s is not what the code imports; run make layers", picture)
	}
	return err
}

// graph is who imports whom.
type graph map[string]map[string]bool

// read lists the imports for both systems, tests left out.
func read(root string) (graph, error) {
	g := graph{}
	for _, system := range []string{"linux", "darwin"} {
		cmd := exec.Command("go", "list", "-e", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./engine/...", "./bridge/...", "./app/...")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH=arm64", "CGO_ENABLED=1")
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list for %s: %w", system, err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			g.add(f[0], f[1:])
		}
	}
	return g, nil
}

func (g graph) add(pkg string, imports []string) {
	from := box(pkg)
	if from == "" {
		return
	}
	if g[from] == nil {
		g[from] = map[string]bool{}
	}
	for _, imp := range imports {
		if to := box(imp); to != "" && to != from {
			g[from][to] = true
		}
	}
}

// box is where a package is drawn: with the packages below it, except that app
// has one for each program part. Test helpers, and what everybody may import,
// are not drawn one by one.
func box(pkg string) string {
	path, ok := strings.CutPrefix(pkg, "osaurus/")
	parts := strings.Split(path, "/")
	switch {
	case !ok || strings.HasSuffix(path, "test"):
		return ""
	case parts[0] == "bridge":
		return "bridge"
	case len(parts) == 1:
		return parts[0]
	case parts[0] == "engine" && foundation[parts[1]]:
		return "foundation"
	}
	return parts[0] + "/" + parts[1]
}

// foundation is what policy.txt lets everybody import.
var foundation = map[string]bool{"secret": true, "address": true, "fault": true, "atomicfile": true, "internal": true}
