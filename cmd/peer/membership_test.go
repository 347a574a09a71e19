package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mdp/qrterminal/v3"

	"peerdex/api"
	"peerdex/node"
)

const oldID = "12D3KooWOldxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

// household is a fake with a device that was revoked, one that left, and two that ask to join.
type household struct{ *fake }

func (h household) Devices(ctx context.Context) ([]node.DeviceView, error) {
	all, err := h.fake.Devices(ctx)
	return append(all,
		node.DeviceView{ID: oldID, Short: "H66A-QQ4T", Name: "phone", Link: node.LinkDisconnected, Gone: node.GoneRevoked, GoneBy: nasID,
			GoneSince: noon.AddDate(0, 0, -3), Seen: noon.AddDate(0, 0, -4), AsOf: noon.AddDate(0, 0, -4), Files: 812, Bytes: 4_100_000_000},
		node.DeviceView{ID: oldID + "2", Short: "M2M2-0001", Name: "nas", Link: node.LinkDisconnected, Gone: node.GoneLeft, GoneSince: noon.AddDate(-1, 0, 0), Files: 3},
	), err
}

func (h household) Status(ctx context.Context) (node.Status, error) {
	st, err := h.fake.Status(ctx)
	if err == nil {
		st.Devices, err = h.Devices(ctx)
	}
	if err == nil {
		st.Requests, err = h.Requests(ctx)
	}
	return st, err
}

func newHousehold(t *testing.T) *bench {
	return newBenchOf(t, func(f *fake) api.Backend { return household{f} })
}

func (h household) Requests(context.Context) ([]node.RequestView, error) {
	return []node.RequestView{
		{Digits: "402913", ID: oldID + "3", Short: "9999-ABCD", Name: "tablet", OS: "android", Since: noon, Expires: noon.Add(10 * time.Minute), Approve: "peer devices approve 402913"},
		{Digits: "000001", ID: oldID + "4", Short: "9999-ABCE", Name: hostile, Since: noon, Expires: noon.Add(10 * time.Minute), Approve: "peer devices approve 000001"},
	}, nil
}

func (h household) Approve(ctx context.Context, request string, refuse bool) (node.RequestView, error) {
	word := "approve "
	if refuse {
		word = "refuse "
	}
	if err := h.did(word + request); err != nil {
		return node.RequestView{}, err
	}
	all, err := h.Requests(ctx)
	return all[0], err
}

func (h household) Remove(ctx context.Context, req node.RemoveRequest) (node.RemoveView, error) {
	word := "revoke "
	if req.Forget {
		word = "forget "
	}
	if req.DryRun {
		word = "try to " + word
	}
	if err := h.did(word + req.Device); err != nil {
		return node.RemoveView{}, err
	}
	v := node.RemoveView{Forget: req.Forget, DryRun: req.DryRun, Kept: []string{"nanopi"}, Later: []string{"nanopi", hostile}}
	if !req.DryRun {
		v.Told, v.Later = v.Later[:1], v.Later[1:]
	}
	all, err := h.fake.Devices(ctx)
	v.Device = all[3]
	return v, err
}

func (h household) Rename(_ context.Context, name string) (node.RenameView, error) {
	return node.RenameView{From: "laptop", To: name}, h.did("rename to " + name)
}

func (h household) Leave(_ context.Context, dryRun bool) (node.LeaveView, error) {
	v := node.LeaveView{DryRun: dryRun, From: "3f9d2a10aabb", Later: []string{"nanopi", "nas"}, RootKey: "/home/mia/.local/share/peer/root-3f9d2a10.key"}
	if dryRun {
		return v, h.did("try to leave")
	}
	v.To, v.Told, v.Later = "77aa00112233", []string{"nas"}, []string{"nanopi"}
	return v, h.did("leave")
}

// Devices that are out, and devices that ask to come in.
func TestMembershipGolden(t *testing.T) {
	for name, line := range map[string]string{
		"household":        "devices",
		"household-status": "status",
		"device":           "devices show H66A",
		"device-member":    "devices show nas",
		"approve":          "devices approve 402913",
		"approve-refuse":   "devices approve --refuse 402913",
		"approve-name":     "devices approve tablet --yes",
		"rename":           "devices rename Büro",
		"rename-this":      "devices rename laptop Büro",
		"revoke":           "devices revoke nas --yes",
		"revoke-dry":       "devices revoke nas --dry-run",
		"forget":           "devices forget nas --yes",
		"forget-dry":       "devices forget nas --dry-run",
		"device-pause":     "devices pause nas",
		"device-resume":    "devices resume nas",
		"leave":            "leave --yes",
		"leave-dry":        "leave --dry-run",
	} {
		t.Run(name, func(t *testing.T) {
			b := newHousehold(t)
			code, out, stderr := b.run(strings.Fields(line)...)
			if code != 0 {
				t.Errorf("exit %d: %s", code, stderr)
			}
			golden(t, name+".txt", "$ peer "+line+"\n"+out+"--- stderr\n"+stderr)
			harmless(t, out+stderr)
			b = newHousehold(t)
			code, doc, stderr := b.run(append(strings.Fields(line), "--json")...)
			if code != 0 || stderr != "" {
				t.Errorf("--json: exit %d, stderr %q", code, stderr)
			}
			one(t, doc)
			harmless(t, doc)
			golden(t, name+".json", doc)
		})
	}
}

// What cannot be undone asks on a terminal, and wants --yes where nobody can be asked.
func TestConfirmation(t *testing.T) {
	for line, does := range map[string]string{
		"devices revoke nas": "revoke " + nasID, "devices forget nas": "forget " + nasID, "leave": "leave", "devices approve tablet": "approve tablet",
	} {
		for _, c := range []struct {
			in       string
			terminal bool
			exit     int
			done     bool
		}{
			{"y\n", true, 0, true}, {"YES\n", true, 0, true}, {"n\n", true, 0, false}, {"\n", true, 0, false}, {"", true, 0, false}, {"perhaps\n", true, 0, false},
			{"y\n", false, 2, false},
		} {
			b := newHousehold(t)
			b.in, b.terminal, b.ewidth = c.in, c.terminal, 80
			code, _, stderr := b.run(strings.Fields(line)...)
			log := b.fake.log()
			if done := strings.HasSuffix(log, does) && !strings.HasSuffix(log, "try to "+does); code != c.exit || done != c.done || c.terminal != strings.Contains(stderr, "[y/N]") {
				t.Errorf("peer %s, answered %q: exit %d, did %q, said %q", line, c.in, code, log, stderr)
			}
		}
		b := newHousehold(t)
		if code, out, stderr := b.run(append(strings.Fields(line), "--json")...); code != 2 || out != "" || !strings.Contains(stderr, "--yes") ||
			strings.Contains(stderr, "--dry-run") == strings.Contains(line, "approve") {
			t.Errorf("peer %s --json: exit %d, %q, %q", line, code, out, stderr)
		}
	}
}

// A QR code is printed beside the line; --json has none.
func TestInviteCode(t *testing.T) {
	b := newBench(t)
	code, out, _ := b.run("invite", "--qr")
	line := regexp.MustCompile(`/\S+#\S+`).FindString(out)
	var half strings.Builder
	qrterminal.GenerateHalfBlock(line, qrterminal.L, &half)
	if line == "" || !strings.Contains(out, half.String()) {
		t.Errorf("the code is not that of the join line %q:\n%s", line, out)
	}
	if code != 0 || strings.Count(out, "\n") < 20 || !strings.Contains(out, "█") || !strings.Contains(out, "/p2p/") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if code, out, _ = b.run("invite", "--qr", "--ascii"); code != 0 || strings.Contains(out, "█") || !strings.Contains(out, "##") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if code, _, stderr := b.run("invite", "--qr", "--json"); code != 2 || !strings.Contains(stderr, "no picture") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// A join without a secret shows the digits and the command to approve it, on stderr, whoever reads stdout.
func TestJoinWaits(t *testing.T) {
	for _, flag := range [][]string{nil, {"--json"}} {
		b := newBench(t)
		code, out, stderr := b.run(append([]string{"join", goodAddr}, flag...)...)
		if code != 0 || !strings.Contains(stderr, "402 913") || !strings.Contains(stderr, "\n  peer devices approve 402913\n") || strings.Contains(out, "402") && flag == nil {
			t.Errorf("%v: exit %d, %q, %q", flag, code, out, stderr)
		}
	}
}

// A daemon in the foreground tells who asks to join.
func TestStartTellsRequests(t *testing.T) {
	var out bytes.Buffer
	out.WriteString(requestsText([]node.RequestView{{Digits: "402913", Name: "tablet", OS: "android", Approve: "peer devices approve 402913"}}))
	if want := "\ntablet, android asks to join. Only if it shows the digits 402 913:\n  peer devices approve 402913\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
