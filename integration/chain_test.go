package integration

import (
	"os"
	"path/filepath"
	"testing"

	"peerdex/node"
)

// T1: alpha indexes, beta is in step with it, gamma joins beta and never meets alpha: gamma holds what
// alpha has, now and after each change. Neither alpha nor gamma listens anywhere, so they cannot meet.
func TestT1ChainWithoutMeeting(t *testing.T) {
	t.Parallel()
	for _, pubsub := range []string{"on", "off"} {
		t.Run("pubsub "+pubsub, func(t *testing.T) {
			dir := tempDir(t)
			fill(t, dir, 1500)
			odd(t, dir)
			b := newPeer(t, "beta", "--pubsub", pubsub)
			line := b.start("").Invite.Line
			a := newInner(t, node.Config{Name: "alpha", Listen: deaf, Pubsub: pubsub == "on"})
			a.add(t, dir)
			a.join(t, line)
			c := newInner(t, node.Config{Name: "gamma", Listen: deaf, Pubsub: pubsub == "on"})
			c.join(t, b.invite())
			all := len(onDisk(t, dir))
			same(t, all, a, b.client, c).wantOnDisk(t, dir)

			write(t, filepath.Join(dir, "later"), "a change on the way")
			if err := os.Rename(filepath.Join(dir, "d000"), filepath.Join(dir, "renamed")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "gamma shows the changes", func() string {
				if got := dumpOf(t, c); len(got.rows) != all+1 || got.find(filepath.Join(dir, "renamed", "f00000")) == nil {
					return plural(len(got.rows), "row")
				}
				return ""
			})
			same(t, all+1, a, b.client, c).wantOnDisk(t, dir)
			wantNeverMet(t, a, "gamma")
			wantNeverMet(t, c, "alpha")
		})
	}
}

func (c catalogue) find(path string) *row {
	for i := range c.rows {
		if c.rows[i].Path == path {
			return &c.rows[i]
		}
	}
	return nil
}

func wantNeverMet(t *testing.T, n *inner, other string) {
	t.Helper()
	devices, err := n.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.Name == other && d.Seen.IsZero() && !d.Online {
			return
		}
	}
	t.Errorf("%s has met %s: %+v", n.name, other, devices)
}

// T2: the same with alpha switched off before gamma starts; gamma's files hold alpha's feeds under heads
// that alpha signed (wantEqualOnDisk verifies them).
func TestT2OwnerIsOff(t *testing.T) {
	t.Parallel()
	dir, own := tempDir(t), tempDir(t)
	fill(t, dir, 1500)
	odd(t, own)
	a, b := two(t, []string{dir}, []string{own})
	before := inStep(t, a, b)
	a.stop()
	c := newPeer(t, "gamma")
	c.join(b.invite())
	inStep(t, b, c)
	if d := before.diff(c.dumpCatalogue()); d != "" {
		t.Errorf("gamma differs from alpha: %s", d)
	}
	if d, ok := c.other("alpha"); !ok || !d.Seen.IsZero() {
		t.Errorf("gamma knows alpha as %+v", d)
	}
	wantEqualOnDisk(t, b, c)
	fa, fc := openHome(t, a.home), openHome(t, c.home)
	defer fa.close(t)
	defer fc.close(t)
	for _, st := range fa.States() {
		if st.Feed.Device != fa.device {
			continue
		}
		if got, _ := fc.State(st.Feed); got.Settled == nil || *got.Settled != *st.Settled {
			t.Errorf("feed %v: alpha is at %s, gamma at %+v", st.Feed, headText(*st.Settled), got.Settled)
		}
	}
}

// Each transport by itself, and gossip switched off: a newcomer gets all, and what changes later.
func TestTransports(t *testing.T) {
	t.Parallel()
	tcp, quic := []string{"--listen", "/ip4/127.0.0.1/tcp/0"}, []string{"--listen", "/ip4/127.0.0.1/udp/0/quic-v1"}
	for name, flags := range map[string][]string{"tcp": tcp, "quic": quic, "no gossip": {"--pubsub", "off"}} {
		t.Run(name, func(t *testing.T) {
			dir, other := tempDir(t), tempDir(t)
			fill(t, dir, 1100)
			a, b := newPeer(t, "alpha", flags...), newPeer(t, "beta", flags...)
			b.join(a.start("", dir).Invite.Line)
			inStep(t, a, b).wantOnDisk(t, dir)
			if d, _ := b.other("alpha"); name == "tcp" && transportOf(d.Address) != "tcp" || name == "quic" && transportOf(d.Address) != "quic-v1" {
				t.Errorf("connected by %q", d.Address)
			}
			odd(t, other) // and R1
			a.add(other)
			write(t, filepath.Join(dir, "later"), "!")
			all := len(onDisk(t, dir)) + len(onDisk(t, other))
			same(t, all, a.client, b.client)
			inStep(t, a, b).wantOnDisk(t, other)
			wantEqualOnDisk(t, a, b)
		})
	}
}
