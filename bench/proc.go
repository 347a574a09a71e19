package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// memory returns VmRSS and VmHWM of a process in bytes.
func memory(pid int) (rss, peak uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "VmRSS:":
			rss, err = strconv.ParseUint(f[1], 10, 64)
		case "VmHWM:":
			peak, err = strconv.ParseUint(f[1], 10, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return rss << 10, peak << 10, nil
}

// clockTick is the unit of the times in /proc/PID/stat on Linux, whatever the kernel's own (proc(5),
// sysconf(_SC_CLK_TCK)).
const clockTick = 10 * time.Millisecond

// cpu returns the user and system time a process has used.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before may hold anything
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * clockTick, err
}

// machine describes where the figures come from, without naming it.
func machine(dir string) string {
	model, ram, disk := "unknown CPU", "?", "unknown file system"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if f := strings.Fields(string(text)); len(f) > 1 {
			if kib, err := strconv.ParseFloat(f[1], 64); err == nil {
				ram = fmt.Sprintf("%.0f GiB", kib/(1<<20))
			}
		}
	}
	if out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output(); err == nil {
		disk = strings.TrimSpace(string(out))
	}
	var u syscall.Utsname
	release := ""
	if syscall.Uname(&u) == nil {
		for _, c := range u.Release {
			if c == 0 {
				break
			}
			release += string(rune(c))
		}
		release, _, _ = strings.Cut(release, "-")
	}
	return fmt.Sprintf("%d cores of %s, %s of memory, %s, Linux %s, %s, loopback.",
		runtime.NumCPU(), model, ram, disk, release, runtime.Version())
}
