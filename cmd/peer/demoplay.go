package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"peerdex/internal/english"
	"peerdex/node"
)

// demoDevices are the devices of a demo, as many as it has, with the files that each begins with.
var demoDevices = []struct {
	name, folder string
	files        []string
}{
	{"laptop", "Pictures", []string{"2023 Lisbon/beach at noon.jpg", "2023 Lisbon/tram 28.jpg", "2024 Oslo/fjord.jpg", "portrait.png"}},
	{"desktop", "Documents", []string{"tax 2023.pdf", "tax 2024.pdf", "letters/to the bank.odt"}},
	{"nas", "Archive", []string{"backup 2022.tar", "video/beach 2019.mov", "video/wedding.mov"}},
	{"attic", "Music", []string{"Bach/cello suite 1.flac", "Bach/cello suite 2.flac"}},
	{"travel", "Camera", []string{"IMG_0001.jpg", "IMG_0002.jpg", "beach bar.jpg"}},
}

// play is the script. Each step is checked by asking the devices.
func (d *demo) play(ctx context.Context) error {
	first, others := d.devices[0], d.devices[1:]
	last := others[len(others)-1]
	for _, s := range []struct {
		text string
		do   func(context.Context) ([]string, error)
	}{
		{"each device starts and indexes a folder of its own", d.startAll},
		{fmt.Sprintf("%s join the library of %s, by an invite each", listed(others), first.name), d.joinAll},
		{"every device knows what is on all of them", func(ctx context.Context) ([]string, error) {
			return nil, d.agree(ctx)
		}},
		{fmt.Sprintf("%s searches for beach", last.name), func(ctx context.Context) ([]string, error) {
			return d.search(ctx, last, "beach")
		}},
		{fmt.Sprintf("a picture appears on %s", first.name), func(ctx context.Context) ([]string, error) {
			if err := first.write("2024 Oslo/aurora.jpg"); err != nil {
				return nil, err
			}
			if err := d.agree(ctx); err != nil {
				return nil, err
			}
			return d.search(ctx, last, "aurora")
		}},
		{fmt.Sprintf("a folder of %s is renamed; its files stay who they are", first.name), func(ctx context.Context) ([]string, error) {
			return d.rename(ctx, first, last, "2023 Lisbon", "Lisbon")
		}},
		{fmt.Sprintf("%s is switched off; %s still finds its files", first.name, last.name), func(ctx context.Context) ([]string, error) {
			return d.leave(ctx, first, last)
		}},
		{fmt.Sprintf("%s comes back, on other ports; both missed something", first.name), func(ctx context.Context) ([]string, error) {
			return d.comeBack(ctx, first, last)
		}},
		{fmt.Sprintf("%s tags a picture; every device shows the tag", first.name), func(ctx context.Context) ([]string, error) {
			file := node.PathRef{Path: filepath.Join(first.folder, "portrait.png")}
			_, err := first.node.ChangeTags(ctx, node.TagRequest{Targets: node.Targets{Paths: []node.PathRef{file}}, Tags: []string{"family"}})
			if err != nil {
				return nil, err
			}
			return d.agreeOnTag(ctx, "family")
		}},
		{fmt.Sprintf("apart from each other, %s and %s rename that tag; all settle on one name", first.name, last.name), func(ctx context.Context) ([]string, error) {
			return d.conflict(ctx, first, last)
		}},
		{fmt.Sprintf("a file of %s is deleted", last.name), func(ctx context.Context) ([]string, error) {
			path := filepath.Join(last.folder, "seen meanwhile.txt")
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			return []string{"gone everywhere: " + d.label(path)}, d.agree(ctx)
		}},
	} {
		if err := d.step(ctx, s.text, s.do); err != nil {
			return err
		}
	}
	return nil
}

func listed(devices []*demoDevice) string {
	names := make([]string, len(devices))
	for i, dev := range devices {
		names[i] = dev.name
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

func (d *demo) startAll(ctx context.Context) (shown []string, err error) {
	for _, dev := range d.devices {
		if err := d.start(ctx, dev); err != nil {
			return nil, err
		}
		v, err := dev.node.AddLocation(ctx, node.AddRequest{Path: dev.folder}, func(node.ScanProgress) {})
		if err != nil {
			return nil, err
		}
		shown = append(shown, fmt.Sprintf("%-8s %-10s %s, %s", dev.name, v.Location.Name, english.Plural(v.Location.Files, "file", "files"), size(v.Location.Bytes)))
	}
	return shown, nil
}

func (d *demo) joinAll(ctx context.Context) (shown []string, err error) {
	for _, dev := range d.devices[1:] {
		v, err := d.devices[0].node.Invite(ctx, node.InviteRequest{})
		if err != nil {
			return nil, err
		}
		req, err := node.ParseJoinLine(v.Line)
		if err != nil {
			return nil, err
		}
		if err := dev.node.Join(ctx, req, func(node.JoinProgress) {}); err != nil {
			return nil, err
		}
	}
	return nil, d.together(ctx)
}

// together waits until every device is connected with every other.
func (d *demo) together(ctx context.Context) error {
	return await(ctx, func() (string, error) {
		for _, dev := range d.devices {
			known, err := dev.node.Devices(ctx)
			if err != nil {
				return "", err
			}
			online := 0
			for _, k := range known {
				if k.Online {
					online++
				}
			}
			if len(known) != len(d.devices) || online != len(known) {
				return fmt.Sprintf("%s knows %d devices, %d of them connected", dev.name, len(known), online), nil
			}
		}
		return "", nil
	})
}

// search searches from a device and checks the answer against the disks.
func (d *demo) search(ctx context.Context, from *demoDevice, word string) (shown []string, err error) {
	paths, err := d.onDisk()
	if err != nil {
		return nil, err
	}
	want := 0
	for path := range paths {
		if strings.Contains(filepath.Base(path), word) {
			want++
		}
	}
	found, err := from.find(ctx, word)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, e := range found {
		shown = append(shown, fmt.Sprintf("%-48s %8s   %s", d.label(e.Path), size(e.Size), fresh(now, e.Current, e.AsOf)))
	}
	if len(found) != want {
		return nil, fmt.Errorf("%s finds %d of %d", from.name, len(found), want)
	}
	return shown, nil
}

// rename renames a folder and checks on another device that everything in it is what it was.
func (d *demo) rename(ctx context.Context, dev, seenBy *demoDevice, from, to string) (shown []string, err error) {
	before, after := filepath.Join(dev.folder, from), filepath.Join(dev.folder, to)
	ids := map[string]string{}
	was, err := seenBy.find(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, e := range was {
		if rest, ok := strings.CutPrefix(e.Path, before); ok {
			ids[after+rest] = e.ID
		}
	}
	if err := os.Rename(before, after); err != nil {
		return nil, err
	}
	if err := d.agree(ctx); err != nil {
		return nil, err
	}
	is, err := seenBy.find(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, e := range is {
		id, moved := ids[e.Path]
		if moved && id != e.ID {
			return nil, fmt.Errorf("%s takes %s for a new file", seenBy.name, d.label(e.Path))
		}
		if moved && e.Path != after {
			shown = append(shown, d.label(e.Path))
		}
	}
	return shown, nil
}

// leave stops a device and searches from another for what it has.
func (d *demo) leave(ctx context.Context, dev, seenBy *demoDevice) (shown []string, err error) {
	if err := dev.stop(); err != nil {
		return nil, err
	}
	err = await(ctx, func() (string, error) {
		found, err := seenBy.find(ctx, "tram")
		if err != nil {
			return "", err
		}
		if len(found) != 1 || found[0].Online {
			return fmt.Sprintf("%s has not noticed that %s is away", seenBy.name, dev.name), nil
		}
		return "", nil
	})
	if err != nil {
		return nil, err
	}
	return d.search(ctx, seenBy, "tram")
}

// comeBack starts a device again after a file has appeared both there and on another.
func (d *demo) comeBack(ctx context.Context, dev, other *demoDevice) (shown []string, err error) {
	for _, w := range []*demoDevice{dev, other} {
		if err := w.write("seen meanwhile.txt"); err != nil {
			return nil, err
		}
	}
	if err := d.start(ctx, dev); err != nil {
		return nil, err
	}
	if err := d.agree(ctx); err != nil {
		return nil, err
	}
	if err := d.together(ctx); err != nil {
		return nil, err
	}
	return d.search(ctx, other, "meanwhile")
}

// conflict has two devices rename a tag while neither hears of the other.
func (d *demo) conflict(ctx context.Context, first, second *demoDevice) (shown []string, err error) {
	for _, dev := range d.devices {
		if _, err := dev.node.Pause(ctx, "", 0); err != nil {
			return nil, err
		}
	}
	names := []string{"relatives", "kin"}
	for i, dev := range []*demoDevice{first, second} {
		if _, err := dev.node.RenameTag(ctx, node.RenameRequest{Tag: "family", To: names[i]}); err != nil {
			return nil, err
		}
		shown = append(shown, fmt.Sprintf("%-8s calls it %s", dev.name, names[i]))
	}
	for _, dev := range d.devices {
		if _, err := dev.node.Resume(ctx, ""); err != nil {
			return nil, err
		}
	}
	agreed, err := d.agreeOnTag(ctx, names...) // the clock of each decides, and so not always the one we call the last
	return append(shown, agreed...), err
}

// agreeOnTag waits until every device shows one tag that people made, on one file, and all the same of names.
func (d *demo) agreeOnTag(ctx context.Context, names ...string) (shown []string, err error) {
	err = await(ctx, func() (string, error) {
		told := map[string][]string{} // which devices show what
		for _, dev := range d.devices {
			all, err := dev.node.Tags(ctx, true)
			if err != nil {
				return "", err
			}
			text := ""
			for _, t := range all {
				if !t.BuiltIn {
					text += fmt.Sprintf("#%s on %s", t.Name, english.Plural(*t.Entries, "file", "files"))
				}
			}
			told[text] = append(told[text], dev.name)
		}
		for _, name := range names {
			if text := "#" + name + " on 1 file"; len(told[text]) == len(d.devices) {
				shown = []string{"everywhere: " + text}
				return "", nil
			}
		}
		return fmt.Sprintf("the devices show %v", told), nil
	})
	return shown, err
}
