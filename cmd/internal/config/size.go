package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"hacluster/blockdev"
)

// units are the factors of a size. B alone, or nothing, is bytes; KiB and its siblings are powers of 1024, KB and its
// siblings powers of 1000.
var units = map[string]int64{
	"": 1, "B": 1,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50,
	"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15,
}

const wantSize = `a whole number with a unit is wanted, such as "20GiB" (B, KiB, MiB, GiB, TiB, PiB, KB, MB, GB, TB, PB)`

// ParseSize reads "20GiB" as bytes. ok is false for anything but a whole number above zero with a known unit.
func ParseSize(s string) (bytes int64, ok bool) {
	digits := strings.TrimRightFunc(s, func(c rune) bool { return c < '0' || c > '9' })
	unit, known := units[strings.TrimPrefix(s[len(digits):], " ")]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || !known || n == 0 || int64(n) > math.MaxInt64/unit {
		return 0, false
	}
	return int64(n) * unit, true
}

// whyNoSize says what is wrong with a text that ParseSize does not take, and what is wanted.
func whyNoSize(s string) (what, want string) {
	digits := strings.TrimRightFunc(s, func(c rune) bool { return c < '0' || c > '9' })
	unit, known := units[strings.TrimPrefix(s[len(digits):], " ")]
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case known && err == nil && n == 0:
		return "a size of zero", "at least one byte is wanted, such as \"20GiB\""
	case known && (errors.Is(err, strconv.ErrRange) || err == nil && int64(n) > math.MaxInt64/unit):
		return "too large", fmt.Sprintf("less than %d bytes are wanted, such as \"20GiB\"", int64(math.MaxInt64))
	}
	return "not a size", wantSize
}

// wholeBlocks names the sizes in whole blocks nearest to one that is not.
func wholeBlocks(bytes int64) string {
	below := bytes / blockdev.BlockSize * blockdev.BlockSize
	switch {
	case below == 0:
		return fmt.Sprintf("a multiple of %d bytes is wanted, such as %dB", blockdev.BlockSize, blockdev.BlockSize)
	case below > math.MaxInt64-blockdev.BlockSize:
		return fmt.Sprintf("a multiple of %d bytes is wanted, such as %dB", blockdev.BlockSize, below)
	}
	return fmt.Sprintf("a multiple of %d bytes is wanted, such as %dB or %dB", blockdev.BlockSize, below, below+blockdev.BlockSize)
}

const wantDuration = `a duration above zero is wanted, such as "3s", "500ms" or "2m"`

// parseDuration reads "3s". A bare number has no unit and is not ok.
func parseDuration(s string) (d time.Duration, ok bool) {
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}
