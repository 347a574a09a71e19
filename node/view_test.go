package node

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Names that are no UTF-8 survive JSON; others are plain strings in it.
func TestRawNames(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, name := range []string{"plain", "a\xffb", "", "\x00\n\u202e", strings.Repeat("\x80", 255)} {
		for _, v := range []any{
			&Entry{Name: name, Path: "/" + name, Target: name, Modified: at, Size: 1 << 60},
			&LocationView{Name: name, Path: "/" + name, LastScan: at, ScanTook: 1_500_000_000},
			&Listing{Path: name, Entries: []Entry{{Name: name}}},
			&Info{Entry: Entry{Name: name}, LocationName: name},
			&AddRequest{Path: name, Name: name},
		} {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			if err := json.Unmarshal(b, back); err != nil || !reflect.DeepEqual(v, back) {
				t.Errorf("%s came back as %+v, %v", b, back, err)
			}
			if name == "plain" && strings.Contains(string(b), "b64") {
				t.Errorf("base64 for nothing: %s", b)
			}
		}
	}
}

const id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

func TestParseJoinLine(t *testing.T) {
	tcp, quic := "/ip4/10.0.0.1/tcp/4001/p2p/"+id, "/ip6/::1/udp/4001/quic-v1/p2p/"+id
	for line, want := range map[string]JoinRequest{
		tcp + "#k7f3-9qxe":                {[]string{tcp}, "k7f3-9qxe"},
		" " + tcp + "#k7f3\n":             {[]string{tcp}, "k7f3"},
		tcp:                               {[]string{tcp}, ""},
		tcp + "," + quic + "#k7f3":        {[]string{tcp, quic}, "k7f3"},
		"/dns4/nas.local/tcp/1/p2p/" + id: {[]string{"/dns4/nas.local/tcp/1/p2p/" + id}, ""},
	} {
		got, err := ParseJoinLine(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, %v", line, got, err)
		}
	}
	other := "/ip4/10.0.0.1/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
	for _, line := range []string{"", "#", "#secret", "nas", "10.0.0.1:4001#secret", "/ip4/10.0.0.1/tcp/4001#secret", tcp + "," + other + "#secret",
		tcp + ",#secret", "/ip4/10.0.0.1/tcp/99999/p2p/" + id + "#secret", tcp + "#" + strings.Repeat("secret", 1000)} {
		_, err := ParseJoinLine(line)
		p, ok := err.(*Problem)
		if !ok || p.Code != CodeBadAddress || p.Cause == "" || p.Try == "" {
			t.Errorf("%q: %v", line, err)
		} else if strings.Contains(p.Error(), "secret") {
			t.Errorf("%q: the secret is repeated: %v", line, err)
		}
	}
}

func FuzzParseJoinLine(f *testing.F) {
	f.Add("/ip4/10.0.0.1/tcp/4001/p2p/" + id + "#k7f3-9qxe")
	f.Add("/ip4/1.1.1.1/udp/1/quic-v1/p2p/" + id + ",/ip6/::1/tcp/1/p2p/" + id + "#x")
	f.Fuzz(func(t *testing.T, line string) {
		req, err := ParseJoinLine(line)
		if err != nil {
			return
		}
		again, err := ParseJoinLine(req.Line())
		if err != nil || !reflect.DeepEqual(req, again) {
			t.Errorf("%q is %+v, then %+v, %v", line, req, again, err)
		}
	})
}
