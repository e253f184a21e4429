package api

// LeastRole is the table, for tests.
var LeastRole = leastRole
