// Package qemu runs a sandbox as a virtual machine: a verified kernel and an
// initramfs made from the verified image, no disk and no network, and one
// serial port with yamux on it as the only way out. Without hardware
// virtualisation it emulates, which is slow and just as tight.
package qemu
