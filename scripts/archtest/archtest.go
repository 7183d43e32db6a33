// Package archtest holds the shape of the tree to its rules: who may import
// whom, how large a file and a function may grow, and that every exported
// name and package is documented. The rules stand in policy.txt; the tests
// fail with the rule that was broken.
package archtest
