// Package archtest holds the code against the picture of who may import whom. It consists of tests only: they list the
// imports of every package (go list) and read the source of the pure ones. Nothing imports it.
package archtest
