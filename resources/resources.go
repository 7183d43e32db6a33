// Package resources holds what is shown and is no code: texts in every
// language, and the page's style and script.
package resources

import "embed"

// Strings holds one JSON object of texts for each language, by its tag:
// strings/en.json is complete, others may lack texts.
//
//go:embed strings/*.json
var Strings embed.FS

// Page holds the assets of the local page.
//
//go:embed page
var Page embed.FS
