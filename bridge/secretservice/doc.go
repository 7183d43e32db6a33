// Package secretservice keeps small secrets in the login keyring of a Linux
// desktop, through the Secret Service that runs in the session. What protects
// them at rest is the login password. It never asks the owner: a keyring that
// is locked is told as locked.
package secretservice
