//go:build osaurus_testpaths

package main

import "os"

// Test builds take --socket and --token-file before the command.
var socketPath, tokenPath = takePaths()

func takePaths() (socket, token string) {
	for len(os.Args) > 2 {
		switch os.Args[1] {
		case "--socket":
			socket = os.Args[2]
		case "--token-file":
			token = os.Args[2]
		default:
			return socket, token
		}
		os.Args = append(os.Args[:1], os.Args[3:]...)
	}
	return socket, token
}

func testSocket() string { return socketPath }
func testToken() string  { return tokenPath }
