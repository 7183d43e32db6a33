package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// ID names a store (decisions D5).
type ID string

// The stores that exist once; Plugin and Agent name the others.
const (
	ChatHistory ID = "chat-history"
	Memory      ID = "memory"
	Methods     ID = "methods"
	ToolIndex   ID = "tool-index"
	Scheduler   ID = "scheduler"
)

const (
	pluginPrefix = "plugin:"
	agentPrefix  = "agent:"
)

// Names under the root (storage.md section 1).
const (
	blobsDir      = "chat-history/blobs"
	pluginsDir    = "Tools"
	agentsDir     = "agents"
	quarantineDir = "quarantine"
	manifestFile  = ".storage-manifest.json"
	journalFile   = ".storage-operation.json"
	postureFile   = ".storage-encryption.json"
	saltFile      = ".storage-key.salt"
	provisioned   = ".storage-key.provisioned"
)

var corePaths = map[ID]string{
	ChatHistory: "chat-history/history.sqlite",
	Memory:      "memory/memory.sqlite",
	Methods:     "methods/methods.sqlite",
	ToolIndex:   "tool-index/tool_index.sqlite",
	Scheduler:   "scheduler.sqlite",
}

var (
	pluginName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	agentName  = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
)

// Plugin names the database of a plugin.
func Plugin(id string) (ID, error) {
	if !pluginName.MatchString(id) {
		return "", fault.WithText(fault.Usage, "a plugin id has letters, digits, dots, dashes and underscores")
	}
	return ID(pluginPrefix + id), nil
}

// Agent names the database of an agent.
func Agent(uuid string) (ID, error) {
	if !agentName.MatchString(uuid) {
		return "", fault.WithText(fault.Usage, "an agent id is a UUID")
	}
	return ID(agentPrefix + strings.ToUpper(uuid)), nil
}

// path is the database of the store relative to the root, with slashes; ""
// for a name that is no store.
func (id ID) path() string {
	if p, ok := corePaths[id]; ok {
		return p
	}
	if name, ok := strings.CutPrefix(string(id), pluginPrefix); ok && pluginName.MatchString(name) {
		return pluginsDir + "/" + name + "/data/data.db"
	}
	if name, ok := strings.CutPrefix(string(id), agentPrefix); ok && agentName.MatchString(name) {
		return agentsDir + "/" + name + "/db.sqlite"
	}
	return ""
}

// found lists the stores whose files exist under root, sorted.
func found(root string) ([]ID, error) {
	var ids []ID
	for id, path := range corePaths {
		if exists(filepath.Join(root, filepath.FromSlash(path))) {
			ids = append(ids, id)
		}
	}
	for dir, name := range map[string]func(string) (ID, error){pluginsDir: Plugin, agentsDir: Agent} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			id, err := name(e.Name())
			if err == nil && exists(filepath.Join(root, filepath.FromSlash(id.path()))) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// unread are folders that hold nothing of ours and may be large.
var unread = []string{"container", "artifacts", "cache", "runtime"}

var errFound = errors.New("found")

// encryptedDataExists reports whether anything under the root may have been
// encrypted: then a missing key is a lost key. When in doubt it says yes.
func (s *Storage) encryptedDataExists() (bool, error) {
	root := s.root
	for _, name := range []string{manifestFile, journalFile, provisioned, saltFile} {
		if exists(filepath.Join(root, name)) {
			return true, nil
		}
	}
	ids, err := found(root)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		format, err := s.sniff(id)
		if err != nil || format == sqlcipher.Encrypted || format == sqlcipher.Foreign {
			return true, nil //nolint:nilerr // what cannot be looked at may be encrypted
		}
	}
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path) //nolint:errcheck // path is below root
		switch {
		case e.IsDir() && slices.Contains(unread, rel):
			return fs.SkipDir
		case strings.HasSuffix(rel, sealed.Ext), strings.HasPrefix(rel, quarantineDir+string(filepath.Separator)) && !e.IsDir():
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}
