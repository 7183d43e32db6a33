// Package guest is what runs inside a sandbox: osaurus-host, with which
// programs of an agent ask the host, and osaurus-guest, the first process,
// which relays the bridge, keeps users and token files, and runs commands for
// the host. Section numbers in comments are those of
// engine/sandbox/PROTOCOL.md.
package guest
