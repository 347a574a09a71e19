package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"peerdex/api"
	"peerdex/node"
)

// daemon is one running peer.
type daemon struct {
	name   string
	home   string
	port   int
	client *api.Client
	cmd    *exec.Cmd
	ended  chan error
	stderr bytes.Buffer
}

// start runs a peer on a TCP port of loopback and returns when it answers.
func (b *bench) start(ctx context.Context, name, home string, port int) (*daemon, error) {
	d := &daemon{name: name, home: home, port: port, ended: make(chan error, 1)}
	d.client = api.NewClient(filepath.Join(home, "peer.sock"))
	d.cmd = exec.Command(b.peer, "--home", home, "start", "--name", name, "--listen", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port))
	d.cmd.Stderr = &d.stderr
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { d.ended <- d.cmd.Wait() }()
	b.cleanup = append(b.cleanup, d)
	return d, d.await(ctx, 10*time.Millisecond, "it answers", func() (bool, error) {
		_, err := d.client.Status(ctx)
		return err == nil, nil
	})
}

// await polls until done is true.
func (d *daemon) await(ctx context.Context, every time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(every):
		case err := <-d.ended:
			d.ended <- err
			return fmt.Errorf("peer %s ended before %s: %w\n%s", d.name, what, err, &d.stderr)
		case <-ctx.Done():
			return fmt.Errorf("peer %s: waiting until %s: %w", d.name, what, ctx.Err())
		}
	}
}

// stop asks the peer to end and waits until it has.
func (d *daemon) stop(ctx context.Context) error {
	defer d.client.Close()
	if _, err := d.client.Stop(ctx); err != nil {
		return err
	}
	select {
	case err := <-d.ended:
		d.ended <- nil
		if err != nil {
			err = fmt.Errorf("peer %s: %w\n%s", d.name, err, &d.stderr)
		}
		return err
	case <-time.After(30 * time.Second):
		return fmt.Errorf("peer %s does not end", d.name)
	}
}

func (d *daemon) kill() {
	select {
	case <-d.ended:
		return
	default:
	}
	_ = d.cmd.Process.Kill() // it may have ended by itself
	<-d.ended
}

// command runs the peer's own command line against the daemon and returns how long it took.
func (b *bench) command(ctx context.Context, d *daemon, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, b.peer, append([]string{"--home", d.home}, args...)...)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("peer %v: %w\n%s", args, err, out)
	}
	return time.Since(start), nil
}

// pair lets b join a's library, which others are in already, and waits until none lacks anything.
func pair(ctx context.Context, a, b *daemon, others ...*daemon) error {
	inv, err := a.client.Invite(ctx, node.InviteRequest{})
	if err != nil {
		return err
	}
	req, err := node.ParseJoinLine(inv.Line)
	if err != nil {
		return err
	}
	if _, err := b.client.Join(ctx, req, nil); err != nil {
		return err
	}
	return inStep(ctx, slices.Concat(others, []*daemon{a, b})...)
}

// inStep waits until all are connected and none knows of a change that one of them lacks.
func inStep(ctx context.Context, all ...*daemon) error {
	for _, d := range all {
		err := d.await(ctx, 20*time.Millisecond, "it is in step", func() (bool, error) {
			st, err := d.client.Status(ctx)
			if err != nil {
				return false, err
			}
			others := 0
			for _, v := range st.Devices {
				if v.Self {
					continue
				}
				others++
				if v.Link != node.LinkConnected || v.WeLack == nil || *v.WeLack > 0 || v.ItLacks == nil || *v.ItLacks > 0 {
					return false, nil
				}
			}
			return others == len(all)-1, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// freePort returns a TCP port of loopback that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// self returns the device ID of a daemon.
func (d *daemon) self(ctx context.Context) (string, error) {
	st, err := d.client.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, v := range st.Devices {
		if v.Self {
			return v.ID, nil
		}
	}
	return "", errors.New("a peer that is no device")
}

// shows reports whether the daemon's catalogue has an entry at that path of a device.
func (d *daemon) shows(ctx context.Context, device, path string) (bool, error) {
	_, err := d.client.List(ctx, node.ListQuery{Device: device, Path: path, Limit: 1})
	var p *node.Problem
	if errors.As(err, &p) && p.Code == node.CodeNotFound {
		return false, nil
	}
	return err == nil, err
}

// fresh makes an empty home.
func (b *bench) fresh(pattern string) (string, error) { return os.MkdirTemp(b.dir, pattern) }

// flush writes the caches of the system to disk, so that one run does not pay for the one before.
func flush() { syscall.Sync() }
