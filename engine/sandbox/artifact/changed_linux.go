package artifact

import (
	"syscall"
	"time"
)

// changed is when the inode last changed, since 1970.
func changed(st *syscall.Stat_t) time.Duration { return time.Duration(st.Ctim.Nano()) }
