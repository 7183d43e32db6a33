// Package sandbox decides what a sandboxed agent may ask of its host. It holds
// the host-API bridge, the tokens that name agents, the policies for paths,
// commands, secrets and the network, and the seam behind which drivers run
// guests. PROTOCOL.md describes what goes over the wire.
package sandbox
