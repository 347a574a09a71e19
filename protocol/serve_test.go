package protocol

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// dyingStream is a stream of yamux whose connection ends while it is being read: what came is returned together with
// the error of the connection, which looks like the end of the stream.
type dyingStream struct {
	network.Stream
	came []byte
	err  error
}

func (s *dyingStream) Read(p []byte) (int, error) {
	if len(s.came) == 0 {
		return 0, fmt.Errorf("%w: connection closed: %w", network.ErrReset, s.err)
	}
	n := copy(p, s.came)
	s.came = s.came[n:]
	return n, s.err
}

func (*dyingStream) SetReadDeadline(time.Time) error { return nil }

// A connection that ends is nobody's fault, wherever in a frame or between two it ends.
func TestConnectionEnds(t *testing.T) {
	payload, err := Encode(&Delta{After: 5})
	if err != nil {
		t.Fatal(err)
	}
	sum := checksum(specOfDelta, 0, payload)
	frame := append([]byte{specOfDelta, 0, byte(len(payload))}, payload...)
	frame = append(frame, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF} {
		for n := range len(frame) + 1 {
			c := NewConn(netStream{&dyingStream{came: frame[:n], err: end}}, ConnConfig{})
			if n == len(frame) {
				if _, err := c.Recv(); err != nil {
					t.Errorf("whole frame, then %v: %v", end, err)
				}
			}
			_, err := c.Recv()
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeLost || e.Fault() {
				t.Errorf("%d of %d bytes, then %v: %v", n, len(frame), end, err)
			}
		}
	}
}

const specOfDelta = 34 // its message number
