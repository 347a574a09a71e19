package node

import (
	"fmt"
	"strings"

	"github.com/multiformats/go-multiaddr"

	"peerdex/protocol"
)

// JoinRequest is a join line taken apart: where to find a device, and the secret that lets us in.
type JoinRequest struct {
	Addrs  []string `json:"addresses"` // multiaddrs, each ending in the same /p2p/ID
	Secret string   `json:"secret"`    // as printed by the inviting device; empty: none was given
}

// maxJoinLine is more than ten addresses and a secret take.
const maxJoinLine = 4096

// ParseJoinLine reads "ADDR[,ADDR…][#SECRET]". Its errors are *Problem with CodeBadAddress and never
// repeat the secret.
func ParseJoinLine(line string) (JoinRequest, error) {
	line = strings.TrimSpace(line)
	bad := func(cause string) (JoinRequest, error) {
		return JoinRequest{}, &Problem{
			Code:    CodeBadAddress,
			Message: "this is not a join line",
			Cause:   cause,
			Try:     "copy the whole line that `peer invite` prints on the other device, in quotes",
		}
	}
	if len(line) > maxJoinLine {
		return bad(fmt.Sprintf("it has %d bytes, more than %d", len(line), maxJoinLine))
	}
	addrs, secret, _ := strings.Cut(line, "#")
	if addrs == "" {
		return bad("there is no address in it")
	}
	var id string
	req := JoinRequest{Secret: secret}
	for text := range strings.SplitSeq(addrs, ",") {
		ma, err := protocol.ParseAddr(text)
		if err != nil {
			return bad(err.Error())
		}
		p, err := ma.ValueForProtocol(multiaddr.P_P2P)
		if err != nil {
			return bad(fmt.Sprintf("%q does not end in /p2p/ and the other device's peer ID", text))
		}
		if id != "" && p != id {
			return bad("its addresses name two different devices")
		}
		id = p
		req.Addrs = append(req.Addrs, ma.String())
	}
	return req, nil
}

// Line is what ParseJoinLine reads.
func (r JoinRequest) Line() string {
	if r.Secret == "" {
		return strings.Join(r.Addrs, ",")
	}
	return strings.Join(r.Addrs, ",") + "#" + r.Secret
}
