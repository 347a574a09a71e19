package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"peerdex/metrics"
	"peerdex/node"
)

const (
	demoPatience = 30 * time.Second        // for one step; on a quiet machine each takes less than a second
	demoPause    = 1200 * time.Millisecond // after a step, on a terminal: time to read it
)

func (a *app) demoCmd() *cobra.Command {
	nodes := 3
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a few devices at work, all in this process, and leave nothing behind",
		Long: "Run a few real devices in this process, on the loopback interface, with folders of sample files in\n" +
			"a temporary directory: they join, search each other's files, and see changes, a rename, a device\n" +
			"that is away, an edit that two of them make at once. Each step is checked by asking the devices; one that does not come true\n" +
			"ends the demo with exit code 1. Your own daemon and files have no part in it, and nothing is left\n" +
			"on disk.",
		Example: "peer demo\n" +
			"peer demo --nodes 5\n" +
			"peer demo --json | jq '.steps[] | {step, duration_seconds}'",
		Annotations: exits(2, 130),
		Args:        arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if nodes < 2 || nodes > len(demoDevices) {
				return usage(fmt.Sprintf("there is no demo of %d devices", nodes), fmt.Sprintf("--nodes is 2 to %d", len(demoDevices)), "peer demo --nodes 3")
			}
			return a.demo(cmd.Context(), nodes)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", nodes, fmt.Sprintf("how many devices, 2 to %d", len(demoDevices)))
	must(cmd.RegisterFlagCompletionFunc("nodes", cobra.FixedCompletions([]string{"2", "3", "4", "5"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// demo is some devices in this process, and what they have shown so far.
type demo struct {
	app     *app
	dir     string // of everything: below it a directory for each device
	devices []*demoDevice
	fail    context.CancelCauseFunc // ends the demo because a device has failed
	steps   []demoStep
}

// demoDevice is one device. Its folder is there all the time, its node while it runs.
type demoDevice struct {
	name, folder string // folder is a path
	node         daemon // nil while it does not run
	stop         func() error
}

// demoStep is one step that came true.
type demoStep struct {
	Step  string          `json:"step"`
	Took  metrics.Seconds `json:"duration_seconds"`
	Shown []string        `json:"shown"` // what the devices said, in lines for people
}

func (a *app) demo(ctx context.Context, nodes int) error {
	dir, err := os.MkdirTemp("", "peer-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // as the devices will spell it
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	d := &demo{app: a, dir: dir}
	err = d.run(ctx, nodes)
	if ctx.Err() != nil {
		err = interrupted()
	}
	if err := errors.Join(err, d.end()); err != nil {
		return err
	}
	if a.json {
		return a.document("peer.demo/v1", struct {
			Steps []demoStep `json:"steps"`
		}{d.steps})
	}
	return a.print("The devices have stopped, and nothing is left on disk.\nWith your own: peer start ~/Pictures\n")
}

func (d *demo) run(ctx context.Context, nodes int) error {
	ctx, d.fail = context.WithCancelCause(ctx)
	defer d.fail(nil)
	if !d.app.json {
		if err := d.app.print("%d devices in this process, with sample files below %s\n", nodes, escape(d.dir)); err != nil {
			return err
		}
	}
	for _, sample := range demoDevices[:nodes] {
		dev := &demoDevice{name: sample.name, folder: filepath.Join(d.dir, sample.name, sample.folder)}
		d.devices = append(d.devices, dev)
		for _, file := range sample.files {
			if err := dev.write(file); err != nil {
				return err
			}
		}
	}
	return d.play(ctx)
}

// end stops what runs and removes everything.
func (d *demo) end() (err error) {
	for _, dev := range d.devices {
		if dev.node != nil {
			err = errors.Join(err, dev.stop())
		}
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}

// step does one step and shows it. It fails if do does, or is not done within demoPatience.
func (d *demo) step(ctx context.Context, text string, do func(ctx context.Context) (shown []string, err error)) error {
	began := time.Now()
	within, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	shown, err := do(within)
	if failed := context.Cause(ctx); failed != nil {
		err = failed
	}
	if err != nil {
		return &node.Problem{Code: node.CodeInternal, Message: "the demo failed at: " + text, Cause: err.Error(), Try: "PEER_LOG=debug peer demo"}
	}
	s := demoStep{Step: text, Took: metrics.Seconds(time.Since(began)), Shown: append([]string{}, shown...)}
	d.steps = append(d.steps, s)
	if d.app.json {
		return nil
	}
	lines := fmt.Sprintf("%s %-64s %8s\n", d.app.glyph(good), escape(text), span(s.Took.Duration()))
	for _, line := range shown {
		lines += "    " + escape(line) + "\n"
	}
	if err := d.app.print("%s", lines); err != nil || d.app.outWidth == 0 {
		return err
	}
	select {
	case <-time.After(demoPause):
	case <-ctx.Done():
	}
	return nil
}

// start runs the node of a device, on ports of the system's choice.
func (d *demo) start(ctx context.Context, dev *demoDevice) error {
	home := filepath.Join(d.dir, dev.name, "home")
	if err := prepareHome(home); err != nil {
		return err
	}
	log, err := d.app.logger()
	if err != nil {
		return err
	}
	listen := []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0"), multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}
	n, err := d.app.open(ctx, nodeConfig{Home: home, Version: version, Name: dev.name, Listen: listen, Pubsub: true, Log: log.With("device", dev.name)})
	if err != nil {
		return err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the step
	ended := make(chan error, 1)
	go func() {
		err := n.Run(life)
		if err != nil {
			d.fail(fmt.Errorf("%s stopped: %w", dev.name, err))
		}
		ended <- errors.Join(err, n.Close())
	}()
	dev.node = n
	dev.stop = func() error {
		stop()
		dev.node = nil
		return <-ended
	}
	return nil
}

// running returns the devices that run.
func (d *demo) running() (out []*demoDevice) {
	for _, dev := range d.devices {
		if dev.node != nil {
			out = append(out, dev)
		}
	}
	return out
}

// await waits until holds says that nothing is missing, or returns what still is.
func await(ctx context.Context, holds func() (missing string, err error)) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		missing, err := holds()
		if err != nil || missing == "" {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return errors.New(missing)
		}
	}
}

// agree waits until every device that runs shows exactly what is in the folders of all of them.
func (d *demo) agree(ctx context.Context) error {
	want, err := d.onDisk()
	if err != nil {
		return err
	}
	return await(ctx, func() (string, error) {
		for _, dev := range d.running() {
			entries, err := dev.find(ctx, "")
			if err != nil {
				return "", err
			}
			got := map[string]bool{}
			for _, e := range entries {
				got[e.Path] = true
			}
			for _, path := range slices.Sorted(maps.Keys(want)) {
				if !got[path] {
					return fmt.Sprintf("%s does not know %s", dev.name, d.label(path)), nil
				}
			}
			for _, path := range slices.Sorted(maps.Keys(got)) {
				if !want[path] {
					return fmt.Sprintf("%s still shows %s", dev.name, d.label(path)), nil
				}
			}
		}
		return "", nil
	})
}

// onDisk returns the path of every file and folder below the devices' folders.
func (d *demo) onDisk() (map[string]bool, error) {
	paths := map[string]bool{}
	for _, dev := range d.devices {
		err := filepath.WalkDir(dev.folder, func(path string, _ fs.DirEntry, err error) error {
			if path != dev.folder {
				paths[path] = true
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read the folder of %s: %w", dev.name, err)
		}
	}
	return paths, nil
}

// label writes a path as device and path below its directory.
func (d *demo) label(path string) string {
	return strings.Replace(strings.TrimPrefix(path, d.dir+string(filepath.Separator)), string(filepath.Separator), ":", 1)
}

// find searches from a device, and returns what it shows in the order of the paths.
func (dev *demoDevice) find(ctx context.Context, text string) (out []node.Entry, err error) {
	_, err = dev.node.Find(ctx, node.FindQuery{Text: text}, func(e node.Entry) error {
		out = append(out, e)
		return nil
	})
	slices.SortFunc(out, func(a, b node.Entry) int { return cmp.Compare(a.Path, b.Path) })
	return out, err
}

// write makes a file in a device's folder.
func (dev *demoDevice) write(name string) error {
	path := filepath.Join(dev.folder, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make a sample folder: %w", err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat(name+"\n", 100)), 0o600); err != nil {
		return fmt.Errorf("make a sample file: %w", err)
	}
	return nil
}
