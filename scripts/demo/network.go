package main

// insideFlag says that the demo runs in a network of its own.
const insideFlag = "-inside"
