package protocol

import (
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peerdex/record"
)

// AddrError says what is wrong with an address a person typed, in the three parts people are shown. It
// never holds a secret.
type AddrError struct {
	Problem string // what cannot be done
	Cause   string
	Try     string // what to do instead
}

func (e *AddrError) Error() string { return e.Problem + ": " + e.Cause }

// Join is what a join line says: where a device is, which device it must be, and the secret of an invite.
type Join struct {
	Device record.DeviceID
	Addr   multiaddr.Multiaddr // without the peer ID
	Secret Secret              // zero: none was given
}

// String writes the join line: multiaddr, "/p2p/", peer ID and, if there is one, '#' and the secret.
func (j Join) String() string {
	line := fmt.Sprintf("%s/p2p/%s", j.Addr, PeerID(j.Device))
	if !j.Secret.IsZero() {
		line += "#" + j.Secret.Text()
	}
	return line
}

const tryJoin = "copy the whole line that \"peer invite\" printed, in quotes: '/ip4/192.168.1.20/tcp/4001/p2p/12D3Koo…#xxxx-xxxx-…'"

// ParseJoin reads a join line. White space around it is ignored. Every error is an *AddrError.
func ParseJoin(text string) (Join, error) {
	bad := func(format string, args ...any) (Join, error) {
		return Join{}, &AddrError{"cannot read the join line", fmt.Sprintf(format, args...), tryJoin}
	}
	addrText, secretText, hasSecret := strings.Cut(strings.TrimSpace(text), "#")
	var j Join
	if addrText == "" {
		return bad("there is no address before the '#'")
	}
	full, err := ParseAddr(addrText)
	if err != nil {
		return bad("%v", err)
	}
	addr, last := multiaddr.SplitLast(full)
	if last == nil || last.Protocol().Code != multiaddr.P_P2P {
		return bad("%q does not end in /p2p/ and a peer id", addrText)
	}
	if len(addr) == 0 {
		return bad("%q says who, but not where", addrText)
	}
	id, err := peer.Decode(last.Value())
	if err != nil {
		return bad("%q is not a peer id: %s", last.Value(), plain(err))
	}
	if j.Device, err = DeviceOf(id); err != nil {
		return bad("%s", plain(err))
	}
	if err := checkTransport(addr); err != nil {
		return bad("%s", plain(err))
	}
	j.Addr = addr
	if hasSecret {
		if j.Secret, err = ParseSecret(secretText); err != nil {
			return bad("what follows the '#' is %s", plain(err))
		}
		if j.Secret.IsZero() {
			return bad("what follows the '#' is %s", ErrSecret)
		}
	}
	return j, nil
}

// ParseAddr reads a multiaddr. Its error is a sentence for people, with what was typed in quotes.
func ParseAddr(text string) (multiaddr.Multiaddr, error) {
	a, err := multiaddr.NewMultiaddr(text)
	if err != nil {
		fault := strings.TrimPrefix(err.Error(), fmt.Sprintf("failed to parse multiaddr %q: ", text)) // said here
		return nil, fmt.Errorf("%q is not a multiaddr: %s", text, plain(errors.New(fault)))
	}
	return a, nil
}

// ParseListen reads an address to listen on. Every error is an *AddrError.
func ParseListen(text string) (multiaddr.Multiaddr, error) {
	bad := func(format string, args ...any) (multiaddr.Multiaddr, error) {
		return nil, &AddrError{"cannot listen there", fmt.Sprintf(format, args...), "/ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1"}
	}
	a, err := ParseAddr(strings.TrimSpace(text))
	if err != nil {
		return bad("%v", err)
	}
	if err := checkTransport(a); err != nil {
		return bad("%s", plain(err))
	}
	if !manet.IsThinWaist(a[:2]) {
		return bad("%q names no IP address of this machine", text)
	}
	return a, nil
}

// checkTransport lets through /ip4, /ip6 or a DNS name, then /tcp/n or /udp/n/quic-v1, and nothing more.
func checkTransport(a multiaddr.Multiaddr) error {
	var codes []int
	for _, c := range a {
		codes = append(codes, c.Protocol().Code)
	}
	if len(codes) >= 2 {
		switch codes[0] {
		case multiaddr.P_IP4, multiaddr.P_IP6, multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6:
			if len(codes) == 2 && codes[1] == multiaddr.P_TCP ||
				len(codes) == 3 && codes[1] == multiaddr.P_UDP && codes[2] == multiaddr.P_QUIC_V1 {
				return nil
			}
		}
	}
	return fmt.Errorf("%q is neither a TCP nor a QUIC address", a.String())
}

// plain quotes control characters in an error's text, which may hold what somebody typed or sent.
func plain(err error) string {
	q := fmt.Sprintf("%q", err.Error())
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func isLoopback(a multiaddr.Multiaddr) bool { return manet.IsIPLoopback(a) }

func addrRank(a multiaddr.Multiaddr) (rank int) {
	for _, c := range a {
		switch c.Protocol().Code {
		case multiaddr.P_IP6:
			rank += 2
		case multiaddr.P_UDP:
			rank++
		}
	}
	return rank
}
