package protocol

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
)

func TestCodeTable(t *testing.T) {
	labels := map[string]bool{"other": true}
	for i, row := range codes {
		if row.code != CodeMalformed+Code(i) {
			t.Errorf("%s is out of order", row.label)
		}
		if row.code < 0x100 || row.code >= 0x1000 {
			t.Errorf("%s is outside our numbers", row.label)
		}
		if labels[row.label] || row.label == "" || row.text == "" || strings.ToLower(row.label) != row.label {
			t.Errorf("label %q", row.label)
		}
		labels[row.label] = true
		if fromReset(network.StreamErrorCode(row.code)) != row.code {
			t.Errorf("%s does not survive a reset", row.label)
		}
		if row.code.Label() != row.label || row.code.Error() != row.text {
			t.Errorf("%s is found as %s", row.label, row.code.Label())
		}
		for _, err := range append(row.errs, row.code, &Error{Code: row.code}) {
			if got := CodeOf(fmt.Errorf("doing: %w", err)); got != row.code {
				t.Errorf("%v has code %v, want %v", err, got, row.code)
			}
		}
	}
	if got := Code(0x3FF); got.Label() != "other" || got.Error() != "code 0x3ff" || fromReset(0x3FF) != got {
		t.Errorf("a code of a newer version: %s, %v", got.Label(), got)
	}
}

func TestCodeOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Code
	}{
		{nil, 0},
		{errors.New("disk full"), CodeInternal},
		{os.ErrDeadlineExceeded, CodeTimeout},
		{context.DeadlineExceeded, CodeTimeout},
		{context.Canceled, CodeShutdown},
		{network.ErrResourceLimitExceeded, CodeBusy},
		{errors.Join(errors.New("x"), CodeBusy), CodeBusy},
		{&Error{Code: CodeMismatch, cause: context.Canceled}, CodeMismatch},
	} {
		if got := CodeOf(tc.err); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
	}
	for n, want := range map[network.StreamErrorCode]Code{
		0: CodeLost, 0x42: CodeLost, 0x1001: CodeUnsupported, 0x1002: CodeBusy, 0x1003: CodeBusy, 0x1004: CodeLost,
		0x1005: CodeLost, 0x1006: CodeLost, 0x1007: CodeShutdown, 0x1008: CodeNotMember, 0x1009: CodeLost,
	} {
		if got := fromReset(n); got != want {
			t.Errorf("reset %#x is %v, want %v", n, got, want)
		}
	}
}

func TestError(t *testing.T) {
	e := &Error{Code: CodeTooLarge, Detail: "page of 3, limit 2", Remote: true}
	if got := e.Error(); got != "larger than the limit: page of 3, limit 2 (said by the other side)" {
		t.Error(got)
	}
	if e.Fault() || !(&Error{Code: CodeTooLarge}).Fault() || (&Error{Code: CodeBusy}).Fault() {
		t.Error("fault")
	}
	if !errors.Is(fmt.Errorf("x: %w", e), CodeTooLarge) || errors.Is(e, CodeBusy) {
		t.Error("errors.Is")
	}
}
