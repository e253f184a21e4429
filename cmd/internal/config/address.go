package config

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

var (
	// nameForm is what clusters, nodes, volumes and services may be called: names become parts of paths, of NBD export
	// names and of log lines.
	nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	hostForm = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$`)
	// numericEnd: a name whose last part is a number is a mistyped IP address, not a name.
	numericEnd = regexp.MustCompile(`(^|\.)(0[xX][0-9A-Fa-f]*|[0-9]+)\.?$`)
)

const wantName = "a letter or digit first, then letters, digits, '.', '_', '-', at most 63 in all"

// refusedHost stands for the host of an address that was refused.
const refusedHost = "host.invalid"

// maxSocketPath is what the kernel takes as the path of a unix socket, less the zero byte at its end.
const maxSocketPath = 107

// endpoint is a host and a port in their one canonical form, so that equal ones compare equal.
type endpoint struct {
	host string
	port uint16
	ip   netip.Addr // zero for a name that is not an address
}

// parseEndpoint reads "host:port". want says what would be right when it is not.
func parseEndpoint(s string) (e endpoint, want string) {
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return e, `host:port is wanted, such as "10.0.0.1:7400" or "[fd00::1]:7400"`
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return e, "a port between 1 and 65535 is wanted"
	}
	e = endpoint{host: strings.ToLower(strings.TrimSuffix(host, ".")), port: uint16(port)}
	if e.ip, err = netip.ParseAddr(host); err == nil {
		e.ip = e.ip.Unmap()
		e.host = e.ip.String()
		return e, badIP(e.ip)
	}
	switch {
	case host == "":
		return e, "an address of this node is wanted: none at all means every interface"
	case numericEnd.MatchString(host), !hostForm.MatchString(host), len(host) > 253:
		return e, "an IP address or a host name is wanted"
	}
	return e, ""
}

// badIP refuses addresses that name no one machine (faults.md C75).
func badIP(ip netip.Addr) (want string) {
	switch {
	case ip.IsUnspecified():
		return "the address of one interface is wanted: " + ip.String() + " means all of them"
	case ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the address of one interface is wanted: " + ip.String() + " is not one"
	}
	return ""
}

// loopback: the endpoint can be reached from this machine only, whatever a resolver says.
func (e endpoint) loopback() bool { return e.ip.IsLoopback() || e.host == "localhost" }

func (e endpoint) String() string { return net.JoinHostPort(e.host, strconv.Itoa(int(e.port))) }

// key is equal for endpoints that cannot both be listened on.
func (e endpoint) key() string {
	if e.host == "localhost" {
		e.host = "127.0.0.1"
	}
	return e.String()
}

// hostOf is the host part of host:port, empty when there is none.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return host
}

// parseListener reads "unix:///path" or "tcp://host:port".
func parseListener(s string) (l Listener, want string) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		return Listener{Network: "unix", Address: path}, badSocketPath(path)
	}
	if hostPort, ok := strings.CutPrefix(s, "tcp://"); ok {
		e, want := parseEndpoint(hostPort)
		return Listener{Network: "tcp", Address: e.String()}, want
	}
	return Listener{}, `"unix:///absolute/path" or "tcp://host:port" is wanted`
}

func badSocketPath(path string) (want string) {
	if want := badPath(path); want != "" {
		return want
	}
	if len(path) > maxSocketPath {
		return "a path of at most " + strconv.Itoa(maxSocketPath) + " bytes is wanted for a unix socket, not " + strconv.Itoa(len(path))
	}
	return ""
}
