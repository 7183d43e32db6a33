//go:build osaurus_stockcrypto

package cipher

// Provider is what PRAGMA cipher_provider must say on every keyed connection.
const Provider = stockProvider
