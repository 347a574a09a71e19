package metrics

import (
	"slices"
	"time"
)

// Filter returns the part of s that concerns one device (short id) and one model; "" means all. The
// totals are those of that part, and what is not known per device, or per model, is left out. s itself
// does not change.
func (s Snapshot) Filter(device, model string) Snapshot {
	if device != "" {
		s = s.ofDevice(device)
	}
	if model != "" {
		s = s.ofModel(model)
	}
	return s
}

func (s Snapshot) ofDevice(id string) Snapshot {
	s.Devices = only(s.Devices, func(d Device) bool { return d.ID == id })
	s.Operations, s.Volume, s.Performance = Operations{}, Volume{}, Performance{}
	s.State, s.Observer = nil, nil
	s.Catalog = Catalog{}
	s.sumDevices()
	var errors Counts
	for _, d := range s.Devices {
		errors.add(d.Errors)
	}
	s.Errors = Errors{Counts: &errors, Recent: only(s.Errors.Recent, func(e ErrorEntry) bool { return e.Device == id })}
	return s
}

func (s Snapshot) ofModel(name string) Snapshot {
	records := Counts{By: map[string]uint64{}}
	models := only(s.Volume.Models, func(m Model) bool { return m.Model == name })
	for _, m := range models {
		records.By[name] = m.Records.Total
		records.Total += m.Records.Total
	}
	live := map[string]int{}
	if n, ok := s.Catalog.Records[name]; ok {
		live[name] = n
	}
	return Snapshot{
		Time: s.Time, Device: s.Device, DeviceName: s.DeviceName, Version: s.Version, Revision: s.Revision,
		Volume:  Volume{Records: &records, Models: models, LastSync: map[string]*time.Time{}},
		Catalog: Catalog{Records: live},
		Errors:  Errors{Recent: []ErrorEntry{}},
		Devices: []Device{},
	}
}

// only returns the elements that pass, in a slice of its own.
func only[T any](list []T, pass func(T) bool) []T {
	return slices.DeleteFunc(append([]T{}, list...), func(v T) bool { return !pass(v) })
}
