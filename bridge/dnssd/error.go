package dnssd

import (
	"errors"
	"fmt"
)

// ErrNoLibrary says that the system has no DNS-SD library.
var ErrNoLibrary = errors.New("this system has no DNS-SD library (libdns_sd)")

// Error is a code of the responder (DNSServiceErrorType in dns_sd.h).
type Error int32

// The codes that are told apart.
const (
	Unknown      Error = -65537 // Avahi: no daemon, or no bus
	NameConflict Error = -65548
	NotRunning   Error = -65563
	PolicyDenied Error = -65570 // macOS 15 and later: no Local Network access
)

// Error returns what happened in words.
func (e Error) Error() string {
	switch e {
	case Unknown, NotRunning:
		return fmt.Sprintf("the DNS-SD responder does not answer (%d)", int32(e))
	case NameConflict:
		return "the name is taken on this network"
	case PolicyDenied:
		return "the system does not allow access to the local network: allow it in its privacy settings"
	}
	return fmt.Sprintf("the DNS-SD responder answers with error %d", int32(e))
}
