// Package migrations has the schemas of the databases (storage.md section 2,
// decisions D6): for each a folder of scripts, one for each version, and the
// steps they make. The tables are those of other hosts.
package migrations

import (
	"embed"

	"osaurus/engine/storage/migrate"
)

//go:embed chats memory methods toolindex scheduler agent
var files embed.FS

// The databases. Memory is made whole in one step, as version MemoryVersion.
var (
	Chats     = migrate.Load(files, "chats")
	Memory    = migrate.Load(files, "memory")
	Methods   = migrate.Load(files, "methods")
	ToolIndex = migrate.Load(files, "toolindex")
	Scheduler = migrate.Load(files, "scheduler")
	Agent     = migrate.Load(files, "agent")
)

// MemoryVersion is the version of a memory that was made here.
const MemoryVersion = 9
