package eventlog

import (
	"fmt"
	"strings"
	"time"

	"peerdex/internal/english"
)

// PeerConnected: a session with a device of the library is up.
type PeerConnected struct {
	Path         string  `json:"path"`      // lan, direct, holepunched or relayed
	Transport    string  `json:"transport"` // tcp or quic-v1
	RTTMS        float64 `json:"rtt_ms"`
	AddressClass string  `json:"address_class"` // loopback, private or public
	Outbound     bool    `json:"outbound"`      // we dialled
	Flaps        int64   `json:"flaps"`         // connects this event stands for, if they were more than three in ten minutes
}

// PeerDisconnected: the session ended.
type PeerDisconnected struct {
	ReasonCode  string `json:"reason_code"`
	ConnectedMS int64  `json:"connected_ms"`
}

// PeerStalled: a device did not read what it was being sent, and that stream was given up.
type PeerStalled struct {
	Sending string `json:"sending"` // a kind of message, or flush
	Repeats
}

// AddressResult is what came of dialling one address.
type AddressResult struct {
	Address string `json:"address"` // multiaddr
	Result  string `json:"result"`
}

// PeerConnectionFailed: no address of a device answered.
type PeerConnectionFailed struct {
	Reason    string          `json:"reason"` // timeout, refused, unauthorized, no_address, rate_limited or error
	Addresses []AddressResult `json:"addresses"`
	Repeats
}

// PeerDiscovered: addresses of a device became known.
type PeerDiscovered struct {
	Source    string   `json:"source"`    // mdns: it announced them on the local network; record: they are in its own feed
	Addresses []string `json:"addresses"` // multiaddrs that were not known
	Repeats
}

func (PeerConnected) Type() Type        { return "peer_connected" }
func (PeerDisconnected) Type() Type     { return "peer_disconnected" }
func (PeerStalled) Type() Type          { return "peer_stalled" }
func (PeerConnectionFailed) Type() Type { return "peer_connection_failed" }
func (PeerDiscovered) Type() Type       { return "peer_discovered" }

func (d PeerConnected) Summary() string {
	s := "via " + d.Path + ", " + d.Transport
	if rtt := time.Duration(d.RTTMS * float64(time.Millisecond)).Round(10 * time.Microsecond); rtt > 0 {
		s += fmt.Sprintf(", %v", rtt)
	}
	if d.Flaps > 0 {
		s += ", unstable: " + english.Plural(d.Flaps, "connect", "connects")
	}
	return s
}

func (d PeerDisconnected) Summary() string {
	return fmt.Sprintf("%s, after %v", d.ReasonCode, milliseconds(d.ConnectedMS).Round(time.Millisecond))
}

func (d PeerStalled) Summary() string { return d.Sending + d.Repeats.String() }

func (d PeerConnectionFailed) Summary() string {
	results := make([]string, 0, len(d.Addresses))
	for _, a := range d.Addresses {
		results = append(results, a.Address+" "+a.Result)
	}
	return join(d.Reason, strings.Join(results, ", ")) + d.Repeats.String()
}

func (d PeerDiscovered) Summary() string {
	return join(d.Source, strings.Join(d.Addresses, ", ")) + d.Repeats.String()
}

func (d PeerDiscovered) repeatKey() string { return d.Source }

func (d PeerDiscovered) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d PeerStalled) repeatKey() string          { return d.Sending }
func (d PeerConnectionFailed) repeatKey() string { return d.Reason }

func (d PeerStalled) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}

func (d PeerConnectionFailed) repeat(_ Detail, r Repeats) Detail {
	d.Repeats = r
	return d
}
