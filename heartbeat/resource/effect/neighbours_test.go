package effect

import (
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

// The expected bytes were put together by hand from the RFCs, the checksum by another program.
func TestPacketsAreThoseOfTheRFCs(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	four := &neighbours{mac: mac, ip: netip.MustParseAddr("10.0.0.100")}
	six := &neighbours{mac: mac, ip: netip.MustParseAddr("fd77::100")}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"ARP probe":        {four.arp(1, netip.IPv4Unspecified(), nil), "0001080006040001" + "020000000001" + "00000000" + "000000000000" + "0a000064"},
		"ARP announcement": {four.arp(2, four.ip, mac), "0001080006040002" + "020000000001" + "0a000064" + "020000000001" + "0a000064"},
		"solicitation": {six.icmp(netip.IPv6Unspecified(), solicited(six.ip), solicitation, 0, nil), "6000000000183aff" + "00000000000000000000000000000000" +
			"ff0200000000000000000001ff000100" + "87007b3000000000" + "fd770000000000000000000000000100"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
	if got := multicast(solicited(six.ip)).String(); got != "33:33:ff:00:01:00" {
		t.Error(got)
	}
}

func FuzzClaims(f *testing.F) {
	f.Add(make([]byte, 28))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, ip := range []string{"10.0.0.100", "fd77::100"} {
			n := &neighbours{ip: netip.MustParseAddr(ip)}
			if n.claims(b) && len(b) < 28 {
				t.Errorf("%d bytes claim %s", len(b), ip)
			}
		}
	})
}
