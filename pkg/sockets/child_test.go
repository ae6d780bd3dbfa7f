package sockets

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/go-logr/logr/funcr"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/leak"
	"github.com/crankctl/crank/test/root"
)

// helperVariable makes the test binary do what some tests need of another process: bind the
// addresses of its arguments, and print the log and either what was bound or the error.
const helperVariable = "CRANK_TEST_SOCKETS_HELPER"

func TestMain(m *testing.M) {
	switch helper := os.Getenv(helperVariable); helper {
	case "":
		os.Exit(leak.Main(m))
	case "owner":
		if err := loseToAnother(os.Args[1]); err != nil {
			fmt.Println(err)
		}
		return
	case "options":
		printOptions()
		return
	case "bind":
	case "without-ipv6":
		refuseIPv6()
	default:
		panic("no helper " + helper)
	}
	var addresses []Address
	var err error
	for _, uri := range os.Args[1:] {
		a, parseErr := ParseAddress(uri)
		addresses, err = append(addresses, a), errors.Join(err, parseErr)
	}
	if err == nil {
		_, err = Bind(addresses, funcr.New(func(_, args string) { fmt.Println(args) }, funcr.Options{}))
	}
	if err != nil {
		fmt.Println("error:", err)
	}
}

// printOptions prints the findings of TestEveryOption as another user.
func printOptions() {
	for _, uri := range kindsOfSockets("@crank-test-" + linux.RandomName()) { // abstract names: it may have no directory
		complaints, changed := everyOption(uri)
		for _, c := range complaints {
			fmt.Println(c)
		}
		if changed < 20 {
			fmt.Println(uri, "only", changed)
		}
	}
}

// helper runs the test binary and returns what it prints. Root's is run as somebody else.
func helper(t *testing.T, name string, uris ...string) string {
	t.Helper()
	// Not the test binary's own path, which only root may be able to reach.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	command := exec.Command("/proc/self/fd/3", uris...)
	command.ExtraFiles = []*os.File{self}
	command.Dir = "/"
	// The race detector would otherwise wait a second before it lets a process end.
	command.Env = []string{helperVariable + "=" + name, "GORACE=atexit_sleep_ms=0"}
	if os.Geteuid() == 0 {
		root.Need(t) // permissions bind nobody who is half a root
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return string(output)
}

func TestPrivilegedPort(t *testing.T) {
	first := sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)
	want := fmt.Sprintf("ports below %d (net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE: "+
		"use a port from %d on, set that sysctl to 80,", first, first)
	if first <= 80 { // container engines set it to 0: then everybody may, and there is nothing to explain
		if got := advise(parseAll(t, ":80")[0], syscall.EACCES).Error(); strings.Contains(got, "CAP_NET") {
			t.Error(got)
		}
		return
	}
	for _, uri := range []string{"127.0.0.1:80", "udp6://[::1]:80"} {
		if got := helper(t, "bind", uri); !strings.Contains(got, want) {
			t.Errorf("%s: %s\nwant %s", uri, got, want)
		}
	}
}

func TestDirectoryWithoutPermission(t *testing.T) {
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	want := "needs write and search permission on directory " + dir
	if got := helper(t, "bind", dir+"/s"); !strings.Contains(got, want) {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestOwnerWithoutPermission(t *testing.T) {
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := helper(t, "bind", dir+"/s?user=0"); !strings.Contains(got, "user= and group= need CAP_CHOWN") {
		t.Error(got)
	}
	if _, err := os.Lstat(dir + "/s"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path was left: %v", err)
	}
}

// Its directory can be written to and not be read, so that there is no lock to be had.
func TestTakeOverInUnreadableDirectory(t *testing.T) {
	dir := shortDir(t)
	stale(t, dir+"/s", syscall.SOCK_STREAM)
	if err := os.Chmod(dir+"/s", 0o777); err != nil { // connect needs write permission
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o333); err != nil {
		t.Fatal(err)
	}
	if got := helper(t, "bind", dir+"/s"); !strings.Contains(got, `"bound"="unix://`+dir) {
		t.Error(got)
	}
}

func TestWithoutIPv6(t *testing.T) {
	tests := []struct{ uri, want string }{
		{":0", `"bound"="tcp4://0.0.0.0:`},
		{":0", `"no IPv6 here, binding to IPv4 only" "address"="tcp://:0"`},
		{"udp://:0?v6only=0", `"bound"="udp4://0.0.0.0:`},
		{"127.0.0.1:0", `"bound"="tcp4://127.0.0.1:`},
		{"tcp6://:0", "there is no IPv6 here: use tcp4://"},
		{"udp6://:0", "there is no IPv6 here: use udp4://"},
		{"[::]:0", "there is no IPv6 here: use tcp4://"},
		{":0?v6only", "there is no IPv6 here: use tcp4://"},
	}
	for _, test := range tests {
		if got := helper(t, "without-ipv6", test.uri); !strings.Contains(got, test.want) {
			t.Errorf("%s: %s\nwant %s", test.uri, got, test.want)
		}
	}
}

// refuseIPv6 makes socket(2) fail as on a kernel that was booted with ipv6.disable=1, in this
// goroutine (seccomp(2)).
func refuseIPv6() {
	const (
		load   = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS
		equal  = syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K
		answer = syscall.BPF_RET | syscall.BPF_K
		allow  = 0x7fff0000 // SECCOMP_RET_ALLOW
		fail   = 0x00050000 // SECCOMP_RET_ERRNO
		number = 0          // of the system call in struct seccomp_data
		domain = 16         // its first argument, the lower half on a little-endian machine

		prSetSeccomp, prSetNoNewPrivs, modeFilter = 22, 38, 2
	)
	filter := []syscall.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: syscall.SYS_SOCKET, Jf: 3},
		{Code: load, K: domain},
		{Code: equal, K: syscall.AF_INET6, Jf: 1},
		{Code: answer, K: fail | uint32(syscall.EAFNOSUPPORT)},
		{Code: answer, K: allow},
	}
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	for _, call := range [][3]uintptr{
		{prSetNoNewPrivs, 1, 0},
		{prSetSeccomp, modeFilter, uintptr(unsafe.Pointer(&program))},
	} {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, call[0], call[1], call[2], 0, 0, 0); errno != 0 {
			panic(errno)
		}
	}
	runtime.KeepAlive(filter)
}
