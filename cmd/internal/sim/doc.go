// Package sim is the model of the mirroring protocol (protocol.md, section 6): the packages that decide, driven through
// seeded schedules of everything that can go wrong, with the rules checked after every step. It has tests only.
package sim
