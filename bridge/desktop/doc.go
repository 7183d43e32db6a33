// Package desktop shows notifications of a Linux desktop (Desktop
// Notifications Specification 1.2) over the session bus. What a notification
// offers never approves anything.
package desktop
