package channel

// What this implementation chose; no peer notices a change.
const (
	// maxChunk is the most plaintext one stream frame of ours carries: longer
	// writes are split, so that sealing takes constant memory.
	maxChunk = 256 << 10
	// maxEvent is the longest line of an event stream the client buffers: it is
	// unauthenticated until it is whole.
	maxEvent = 32 << 20
	// maxAnswer is the longest buffered answer the client reads: maxBody in
	// base64 twice, and the JSON around it.
	maxAnswer = maxBody/9*16 + 64<<10
	// maxPool bounds a client's sessions with one peer and so, times
	// maxOutstanding, its calls; further calls wait.
	maxPool = 32
	// maxIdle is the largest scratch buffer kept for reuse.
	maxIdle = 1 << 20
	// baseBuffer is the read and write buffer of the client's connections.
	baseBuffer = 128 << 10
	// firstRead is what a declared length may reserve before a byte of it came.
	firstRead = 128 << 10
	// shardCount is one for each first byte of a session's id.
	shardCount = 256
)
