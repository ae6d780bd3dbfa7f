package sockets

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/root"
)

// values are tried on every option: four-byte numbers, and the formats of some options.
func values() (all [][]byte) {
	for _, n := range []int32{0, 1, 2, 3, 5, 7, 10, 100, 255, 1000, 100000, -1} {
		all = append(all, binary.NativeEndian.AppendUint32(nil, uint32(n)))
	}
	time := binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, 3), 0)
	linger := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 1), 5)
	return append(all, time, linger, []byte("reno\x00"), []byte("lo\x00"), []byte{1})
}

// notRead are options with a side effect on reading: SO_ERROR takes the error, SO_PEERPIDFD opens a descriptor.
var notRead = map[[2]int]bool{{syscall.SOL_SOCKET, syscall.SO_ERROR}: true, {syscall.SOL_SOCKET, 77}: true}

// others are options that set another one of linux.SharedOptions, by the number of that one.
var others = map[[2]int]string{
	{syscall.SOL_SOCKET, 25}: "SO_BINDTODEVICE",
	{syscall.SOL_SOCKET, 32}: "SO_SNDBUF", {syscall.SOL_SOCKET, 33}: "SO_RCVBUF",
	{syscall.SOL_SOCKET, 65}: "SO_TIMESTAMPING", {syscall.SOL_SOCKET, 66}: "SO_RCVTIMEO", {syscall.SOL_SOCKET, 67}: "SO_SNDTIMEO",
}

func rawGet(fd int, number [2]int) ([]byte, bool) {
	value := make([]byte, 256)
	n := uint32(len(value))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), uintptr(number[0]), uintptr(number[1]),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return nil, false
	}
	return value[:n], true
}

func rawSet(fd int, number [2]int, value []byte) bool {
	_, _, errno := syscall.Syscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(number[0]), uintptr(number[1]),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0)
	return errno == 0
}

// everyOption changes every option of a socket that this kernel lets it change, one at a time, and returns what is wrong: an option that is
// not listed in linux.SharedOptions, or one that is neither put back nor reported.
func everyOption(uri string) (complaints []string, changed int) {
	known := map[[2]int]linux.SharedOption{}
	named := map[string]linux.SharedOption{}
	for _, o := range linux.SharedOptions {
		level, opt := o.Number()
		known[[2]int{level, opt}], named[o.Name()] = o, o
	}
	for _, level := range []int{syscall.SOL_SOCKET, syscall.IPPROTO_IP, syscall.IPPROTO_IPV6, syscall.IPPROTO_TCP, syscall.IPPROTO_UDP} {
		for opt := range 128 {
			number := [2]int{level, opt}
			was, effect, err := changeOption(uri, number)
			if err != nil {
				return []string{err.Error()}, 0
			}
			if effect == "" {
				continue
			}
			changed++
			o, ok := known[number]
			if !ok {
				o, ok = named[others[number]]
			}
			what := fmt.Sprintf("%s: option %d of level %d (%s), which was %x", uri, opt, level, o.Name(), was)
			switch {
			case !ok:
				complaints = append(complaints, what+" is not in linux.SharedOptions")
			case effect == "unreadable" && o.Undo != linux.Unseen:
				complaints = append(complaints, what+" cannot be read")
			case effect != "unreadable" && effect != "undone" && (o.Undo == linux.Reversible || !strings.HasPrefix(effect, "reported")):
				complaints = append(complaints, what+" is "+effect)
			}
		}
	}
	return complaints, changed
}

// changeOption changes an option, and puts it back. effect is empty where the kernel refuses.
func changeOption(uri string, number [2]int) (was []byte, effect string, err error) {
	a, err := ParseAddress(uri)
	if err != nil {
		return nil, "", err
	}
	set, err := Bind([]Address{a}, logr.Discard())
	if err != nil {
		return nil, "", err
	}
	defer set.Close()
	s := set.Sockets()[0]
	snapshot := set.Snapshot()
	readable := false
	if !notRead[number] {
		was, readable = rawGet(s.FD(), number)
	}
	done := false
	for _, value := range values() {
		if !rawSet(s.FD(), number, value) {
			continue
		}
		now, _ := rawGet(s.FD(), number)
		if done = !readable || !bytes.Equal(was, now); done {
			break
		}
	}
	switch {
	case !done:
		return was, "", nil
	case !readable && others[number] == "":
		return was, "unreadable", nil
	}
	set.PutBack(snapshot)
	switch {
	case len(set.Broken()) > 0:
		return was, fmt.Sprint("reported: ", set.Broken()), nil
	case len(set.PutBack(snapshot)) > 0:
		return was, "put back, but not for long", nil
	}
	if now, _ := rawGet(s.FD(), number); !bytes.Equal(was, now) && others[number] == "" && !equivalent(number) {
		return was, fmt.Sprintf("%x afterwards", now), nil
	}
	return was, "undone", nil
}

// equivalent are the options with several values that mean the same: see linux.SharedOption's Same.
func equivalent(number [2]int) bool {
	return number == [2]int{syscall.SOL_SOCKET, syscall.SO_LINGER} || number == [2]int{syscall.IPPROTO_TCP, syscall.TCP_WINDOW_CLAMP}
}

// kindsOfSockets returns one address of each kind, with paths below dir.
func kindsOfSockets(dir string) []string {
	return []string{"tcp4://127.0.0.1:0", "tcp://[::]:0", "udp4://127.0.0.1:0", "udp://[::]:0", dir + "/a", "unixgram://" + dir + "/b", "unixpacket://" + dir + "/c"}
}

// TestEveryOption asks the kernel which options exist: each that can be changed has to be put back, reported, or listed as not seen in
// docs/sockets.md.
func TestEveryOption(t *testing.T) {
	for _, uri := range kindsOfSockets(shortDir(t)) {
		complaints, changed := everyOption(uri)
		t.Logf("%s: %d options can be changed", uri, changed)
		for _, c := range complaints {
			t.Error(c)
		}
		if changed < 20 {
			t.Errorf("%s: only %d options can be changed: this shows nothing", uri, changed)
		}
	}
	if root.Full() {
		t.Run("as another user", func(t *testing.T) {
			if out := helper(t, "options"); out != "" {
				t.Error(out)
			}
		})
	}
}

// TestPutBack: flags, owner, filter, and the mode and owner of the path.
func TestPutBack(t *testing.T) {
	drop := []byte{6, 0, 0, 0, 0, 0, 0, 0} // BPF_RET | BPF_K, 0: nothing passes
	for _, uri := range kindsOfSockets(shortDir(t)) {
		t.Run(uri, func(t *testing.T) {
			set := bindAll(t, uri)
			s := set.Sockets()[0]
			fd := another(t, s)
			changes := map[string]func() error{
				"its flags": func() error {
					return linux.SetFlags(fd, linux.Flags{Status: syscall.O_NONBLOCK | syscall.O_ASYNC, Owner: linux.Owner{Type: 2, ID: int32(syscall.Getpgrp())}, Signal: int(syscall.SIGURG)})
				},
				"a filter": func() error { return linux.SetFilter(fd, drop) },
			}
			if s.Address().Path != "" {
				changes["mode 0000"] = func() error { return os.Chmod(s.Address().Path, 0) }
			}
			for want, change := range changes {
				snapshot := set.Snapshot()
				if found := set.PutBack(snapshot); len(found) > 0 {
					t.Errorf("nothing was changed, but %v", found)
				}
				if err := change(); errors.Is(err, syscall.EPERM) && !root.Full() {
					t.Logf("NOT TESTED: %s of %s: %v: only root can change it", want, uri, err)
					continue
				} else if err != nil {
					t.Fatal(err)
				}
				wantRestored(t, set) // Tend leaves it alone
				found := set.PutBack(snapshot)
				if len(found) != 1 || found[0].Err != nil || !strings.Contains(found[0].What, want) {
					t.Errorf("found %v, want %q", found, want)
				}
				if found := set.PutBack(snapshot); len(found) > 0 {
					t.Errorf("it was not put back: %v", found)
				}
			}
			if err := exchange(t, s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFilterComesBack: the filter that the app had before is attached again.
func TestFilterComesBack(t *testing.T) {
	pass := []byte{6, 0, 0, 0, 0xff, 0xff, 0, 0}
	set := bindAll(t, "udp4://127.0.0.1:0")
	s := set.Sockets()[0]
	if err := linux.SetFilter(s.FD(), pass); err != nil {
		t.Fatal(err)
	}
	snapshot := set.Snapshot()
	if err := linux.SetFilter(another(t, s), nil); err != nil {
		t.Fatal(err)
	}
	set.PutBack(snapshot)
	if now, err := linux.Filter(s.FD()); !bytes.Equal(now, pass) || err != nil {
		t.Errorf("the filter is %x, %v", now, err)
	}
}

// TestLost: Broken includes a property that could not be put back until it has its old value. Tend does not retry: the value may be the
// current generation's by then.
func TestLost(t *testing.T) {
	set := bindAll(t, "udp4://127.0.0.1:0")
	now, tried := "changed", 0
	set.Sockets()[0].undo(property{
		name:    "SO_TEST",
		differs: func() string { return now },
		putBack: func() error {
			tried++
			return errors.New("refused")
		},
	})
	wantBroken(t, set, "refused")
	if tried != 1 {
		t.Errorf("tried %d times", tried)
	}
	now = ""
	wantRestored(t, set)
}
