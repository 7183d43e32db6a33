// Command standin is a first process for the drivers' conformance tests: it
// runs what the test asks for, as any user, and relays the bridge socket with
// the peer's user id in front. It is no part of the product.
package main
