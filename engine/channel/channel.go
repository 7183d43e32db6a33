// Package channel is the Secure Channel, version 1: end-to-end encryption
// between two peers above HTTP, so that a relay or an observer on the LAN is a
// blind pipe (PROTOCOL.md). The handshake and the records are machines without
// I/O; Server and Transport put them around an ordinary http.Handler and behind
// an ordinary http.Client.
package channel
