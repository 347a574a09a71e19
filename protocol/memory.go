package protocol

import (
	"github.com/dustin/go-humanize"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

// Use is what memory is taken for. Each but UseFrame has a cap of its own among the resource manager's limits, so that
// none takes from another.
type Use string

// Uses of memory.
const (
	UseApply    Use = "apply"    // what a pull holds of what has come until it is put in
	UseServe    Use = "serve"    // pages and chunks on their way out
	UseSnapshot Use = "snapshot" // a library on its way into fresh files, or out of the store into a file
	UseFrame    Use = "frame"    // a frame that came in, while it is looked at: counts to its stream, device and host
)

// caps are the most bytes of each use at a time.
var caps = map[Use]int64{
	UseApply:    64 << 20,
	UseServe:    48 << 20,
	UseSnapshot: 256 << 20,
}

// Cap returns the most bytes of a use at a time.
func (u Use) Cap() int64 { return caps[u] }

// MemoryError says what this side has no memory left for. It comes in an *Error with CodeBusy.
type MemoryError struct {
	Use   Use
	Bytes int
	err   error // the resource manager's
}

// Error says how much was wanted for what. The resource manager's own words name scopes, which tell nobody more.
func (e *MemoryError) Error() string {
	s := humanize.IBytes(uint64(e.Bytes)) + " for " + string(e.Use)
	if most := e.Use.Cap(); most > 0 {
		s += ", at most " + humanize.IBytes(uint64(most)) + " at once"
	}
	return s
}

func (e *MemoryError) Unwrap() error { return e.err }

// Reserve takes bytes of a use out of the host's budget. It does not wait: where the cap would be exceeded it returns
// an *Error that wraps a *MemoryError. release gives them back; it may be called again.
func Reserve(h host.Host, use Use, bytes int) (release func(), err error) {
	var span network.ResourceScopeSpan
	err = h.Network().ResourceManager().ViewService(string(use), func(s network.ServiceScope) (err error) {
		span, err = s.BeginSpan()
		return err
	})
	if err == nil {
		if err = span.ReserveMemory(bytes, network.ReservationPriorityAlways); err == nil {
			return span.Done, nil
		}
		span.Done()
	}
	return nil, noMemory(use, bytes, err)
}

func noMemory(use Use, bytes int, err error) error {
	m := &MemoryError{use, bytes, err}
	return &Error{Code: CodeBusy, Detail: "no memory left: " + m.Error(), cause: m}
}
