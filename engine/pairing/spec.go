// Package pairing lets two hosts that never met exchange an access key after
// the owner approved: challenges, the approval queue, sealed delivery, and the
// connector's side with its list of peers. PROTOCOL.md beside this file is its
// specification.
package pairing

import "time"

// What the protocol fixes, PROTOCOL.md sections 1 to 3 and 7.
const (
	ChallengeTTL      = 120 * time.Second
	MaxChallenges     = 256
	challengeBytes    = 32
	encPubSize        = 32
	approvalTimeout   = 110 * time.Second // below the connectors' 120 s
	infoPrefix        = "osaurus-pair-key-v1:"
	serverTextPrefix  = "osaurus-pairing-server-v1:"
	labelPrefix       = "Paired – "
	connectorDeadline = 120 * time.Second
)

// ApprovalTimeout is how long the owner has to answer.
const ApprovalTimeout = approvalTimeout

// Our limits.
const (
	// MaxReply bounds a host's answer in bytes before it is parsed.
	MaxReply = 64 << 10
	// MaxPeers bounds the peers a connector keeps.
	MaxPeers = 1000
	// MaxPeerName bounds the name given to a peer, in characters.
	MaxPeerName = 80
)
