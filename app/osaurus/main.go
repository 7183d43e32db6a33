// Command osaurus is the headless host and its command line.
package main

import (
	"context"
	"os"

	"osaurus/app/cli"
	"osaurus/bridge"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.System{
		Program: cli.ProgramName(os.Args[0]), Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Ports: bridge.Default, Approvals: bridge.Approvals,
	}))
}
