//go:build !osaurus_testpaths

package main

func testSocket() string { return "" }
func testToken() string  { return "" }
