package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/leak"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

const (
	helperVariable = "NOTIFY_TEST_HELPER"
	nobody         = 65534
)

// helpers are the programs that this test binary plays.
var helpers = map[string]func() error{
	"send by address":    func() error { return sendTo(os.Getenv("NOTIFY_SOCKET"), "READY=1") },
	"send by descriptor": func() error { _, err := os.NewFile(3, "notify").WriteString("READY=1"); return err },
	"send as nobody": func() error {
		if err := errors.Join(syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return err
		}
		return sendTo(os.Getenv("NOTIFY_SOCKET"), "READY=1")
	},
}

func TestMain(m *testing.M) {
	if helper := helpers[os.Getenv(helperVariable)]; helper != nil {
		if err := helper(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leak.Main(m))
}

// directory is a 0711 directory that other users can reach.
func directory(t *testing.T) string {
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string) *Receiver {
	t.Helper()
	r, err := Open(dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

type event struct {
	Sender
	Message
}

// serve gives what is handled to a channel.
func serve(r *Receiver) <-chan event {
	events := make(chan event, 100)
	r.Serve(func(s Sender, m Message) { events <- event{s, m} })
	return events
}

func next(t *testing.T, events <-chan event) event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(patience):
		t.Fatal("no message came")
		panic("not reached")
	}
}

func dial(t testing.TB, address string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func sendTo(address, text string) error {
	c, err := net.Dial("unixgram", address)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(text))
	return err
}

func send(t *testing.T, c *net.UnixConn, text string, fds ...int) {
	t.Helper()
	raw, err := c.SyscallConn() // WriteMsgUnix refuses connected datagram sockets
	if err != nil {
		t.Fatal(err)
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = syscall.Sendmsg(int(fd), []byte(text), syscall.UnixRights(fds...), nil, 0)
		return sent != syscall.EAGAIN
	})
	if err := errors.Join(err, sent); err != nil {
		t.Fatal(err)
	}
}

func TestAddress(t *testing.T) {
	dir := directory(t)
	old := syscall.Umask(0o077)
	r := open(t, dir)
	syscall.Umask(old)
	info, err := os.Stat(r.Address())
	if err != nil {
		t.Fatal(err)
	}
	if want := os.ModeSocket | 0o666; info.Mode() != want {
		t.Errorf("mode %v, want %v", info.Mode(), want)
	}
	if filepath.Dir(r.Address()) != dir || len(filepath.Base(r.Address())) < len("notify-4-")+26 {
		t.Errorf("address %s", r.Address())
	}
	if other := open(t, dir); other.Address() == r.Address() {
		t.Error("two sockets have the same name")
	}
	if r := open(t, ""); !strings.HasPrefix(r.Address(), "@crank-notify-4-") {
		t.Errorf("abstract address %s", r.Address())
	}
}

func TestOpenFails(t *testing.T) {
	before := descriptors(t)
	for dir, want := range map[string]string{
		filepath.Join(directory(t), "missing"):     "no such file",
		"/tmp/" + strings.Repeat("long/", maxPath): "use a shorter runtime directory",
	} {
		if _, err := Open(dir, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s): %v, want %q", dir, err, want)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

// The child gets the descriptor as launch gives it: blocking, and by number.
func helper(t *testing.T, r *Receiver, name string) *exec.Cmd {
	t.Helper()
	app, err := syscall.Dup(r.AppFD())
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(app), "app end")
	defer file.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+name, "NOTIFY_SOCKET="+r.Address())
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// Every sender here is gone and reaped before anybody reads.
func TestDeadSender(t *testing.T) {
	for name := range helpers {
		for _, dir := range []string{directory(t), ""} {
			t.Run(name+dir, func(t *testing.T) {
				inherited := name == "send by descriptor"
				want := Sender{UID: os.Getuid(), GID: os.Getgid(), Abstract: dir == "" && !inherited, Inherited: inherited}
				if name == "send as nobody" {
					root.Need(t)
					want.UID, want.GID = nobody, nobody
				}
				r := open(t, dir)
				cmd := helper(t, r, name)
				want.PID = cmd.Process.Pid
				e := next(t, serve(r))
				if e.Sender != want || !e.Ready {
					t.Errorf("got %+v, want %+v", e, want)
				}
			})
		}
	}
}

func TestAppEndIsBlockingAndCloses(t *testing.T) {
	r := open(t, "")
	fd := r.AppFD()
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno != 0 || flags&syscall.O_NONBLOCK != 0 {
		t.Errorf("flags %x, error %v", flags, errno)
	}
	flags, _, errno = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %x, error %v", flags, errno)
	}
	r.CloseAppEnd()
	r.CloseAppEnd()
	if r.AppFD() != -1 {
		t.Errorf("AppFD %d after CloseAppEnd", r.AppFD())
	}
	// The other socket is not disturbed.
	events := serve(r)
	send(t, dial(t, r.Address()), "STOPPING=1")
	if e := next(t, events); !e.Stopping {
		t.Errorf("got %+v", e)
	}
}

// ended reports whether nobody has the write end of the pipe open.
func ended(t *testing.T, read int) bool {
	t.Helper()
	n, err := syscall.Read(read, make([]byte, 1))
	if err != nil && err != syscall.EAGAIN {
		t.Fatal(err)
	}
	return n == 0 && err == nil
}

// pipes returns read ends and write ends. Close-on-exec and non-blocking.
func pipes(t *testing.T, n int) (read, write []int) {
	t.Helper()
	for range n {
		var p [2]int
		if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		read, write = append(read, p[0]), append(write, p[1])
	}
	t.Cleanup(func() { closeAll(read) })
	return read, write
}

func TestDescriptorsAreClosed(t *testing.T) {
	const most = 253 // SCM_MAX_FD
	for _, text := range []string{"READY=1", "FDSTORE=1", "BARRIER=0"} {
		r := open(t, directory(t))
		read, write := pipes(t, most)
		send(t, dial(t, r.Address()), text, write...)
		closeAll(write)
		events := serve(r)
		next(t, events)
		for _, fd := range read {
			awaitEnd(t, text, fd)
		}
		r.Close()
	}
}

// awaitEnd waits until all other ends of a pipe are closed. It polls, since ended does not block.
func awaitEnd(t *testing.T, text string, fd int) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ended(t, fd); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: a descriptor is still open", text)
		}
	}
}

// closeAll closes a test's own descriptors.
func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		syscall.Close(fd)
	}
}

// TestBarrier does what sd_notify_barrier(3) does.
func TestBarrier(t *testing.T) {
	r := open(t, directory(t))
	c := dial(t, r.Address())
	read, write := pipes(t, 1)
	var handled []string // no lock: one call at a time, and the barrier orders the rest
	r.Serve(func(_ Sender, m Message) {
		if m.Barrier && ended(t, read[0]) {
			t.Error("the barrier was open before its message was handled")
		}
		handled = append(handled, m.Status)
	})
	for i := range 5 {
		send(t, c, "STATUS="+strconv.Itoa(i))
	}
	send(t, c, "BARRIER=1", write...)
	closeAll(write)
	waiting, err := syscall.Dup(read[0])
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(waiting), "barrier") // non-blocking, as read[0] stays
	defer file.Close()
	file.SetReadDeadline(time.Now().Add(patience))
	if n, err := file.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the barrier has not ended: %d bytes, %v", n, err)
	}
	r.turn.Lock() // held by nobody now; for the race detector
	got := strings.Join(handled, " ")
	r.turn.Unlock()
	if got != "0 1 2 3 4 " {
		t.Errorf("handled %q", got)
	}
}

func TestSystemdNotify(t *testing.T) {
	if err := programs.Works("systemd-notify"); err != nil {
		t.Skipf("NOT TESTED: %v; TestBarrier covers the same protocol", err)
	}
	for _, dir := range []string{directory(t), ""} {
		r := open(t, dir)
		events := serve(r)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "systemd-notify", "--ready", "--status=all is well")
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+r.Address())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("systemd-notify: %v: %s", err, out)
		}
		if e := next(t, events); !e.Ready || e.Status != "all is well" || e.PID == 0 {
			t.Errorf("got %+v", e)
		}
	}
}

func TestLongDatagrams(t *testing.T) {
	r := open(t, directory(t))
	events := serve(r)
	read, write := pipes(t, 1)
	app := os.NewFile(uintptr(r.AppFD()), "app end")
	r.appEnd = -1 // app owns it now
	defer app.Close()
	c := dial(t, r.Address())
	if err := c.SetWriteBuffer(256 << 10); err != nil {
		t.Fatal(err)
	}
	padded := func(text string, size int) string {
		return text + "\nX=" + strings.Repeat("x", size-len(text)-3)
	}
	send(t, c, padded("BARRIER=1", MaxDatagram+1), write...)
	closeAll(write)
	send(t, c, padded("STATUS=fits", MaxDatagram))
	if e := next(t, events); !cmp.Equal(e.Message, Message{Void: voidLong}) {
		t.Errorf("got %+v", e)
	}
	if e := next(t, events); e.Status != "fits" || e.Malformed != 0 {
		t.Errorf("got %+v", e)
	}
	awaitEnd(t, "dropped datagram", read[0])
	for _, text := range []string{padded("STATUS=long", MaxDatagram+1), "", padded("STATUS=fits too", MaxDatagram)} {
		if _, err := syscall.Write(int(app.Fd()), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if e := next(t, events); !cmp.Equal(e.Message, Message{Void: voidLong}) {
		t.Errorf("got %+v", e)
	}
	if e := next(t, events); e.Status != "fits too" {
		t.Errorf("got %+v", e)
	}
}

func TestFlood(t *testing.T) {
	const each = 20000
	r := open(t, directory(t))
	app := os.NewFile(uintptr(r.AppFD()), "app end")
	r.appEnd = -1 // app owns it now
	defer app.Close()

	next, left, done := map[string]int{}, 2*each, make(chan struct{})
	var most uint64
	r.Serve(func(_ Sender, m Message) {
		sender, number, _ := strings.Cut(m.Status, " ")
		if n, _ := strconv.Atoi(number); n != next[sender] && !t.Failed() {
			t.Errorf("%s: message %s, want %d", sender, number, next[sender])
		}
		next[sender]++
		if left--; left%1000 == 0 {
			runtime.GC()
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			most = max(most, stats.HeapAlloc)
		}
		if left == 0 {
			close(done)
		}
	})
	var start runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&start)
	filler := "\nX=" + strings.Repeat("x", 4000)
	c := dial(t, r.Address())
	flood := func(name string, write func([]byte) error) {
		for i := range each {
			if err := write(fmt.Appendf(nil, "STATUS=%s %d%s", name, i, filler)); err != nil {
				t.Error(err)
				return
			}
		}
	}
	go flood("address", func(b []byte) error { _, err := c.Write(b); return err })
	go flood("pair", func(b []byte) error { _, err := app.Write(b); return err })
	select {
	case <-done:
	case <-time.After(4 * patience):
		t.Fatal("not all messages came")
	}
	// 160 MB went through.
	if grown := int64(most) - int64(start.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

// A blocked handle stops the reading, so that the app's writes block: nothing is lost or piled up.
func TestBackPressure(t *testing.T) {
	r := open(t, directory(t))
	release, handled := make(chan struct{}), make(chan string, 1000)
	r.Serve(func(_ Sender, m Message) {
		<-release
		handled <- m.Status
	})
	fd, err := syscall.Dup(r.AppFD())
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	sent := 0
	for ; ; sent++ {
		err := syscall.Sendto(fd, fmt.Appendf(nil, "STATUS=%d", sent), syscall.MSG_DONTWAIT, nil)
		if err == syscall.EAGAIN || sent == cap(handled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if sent == 0 || sent == cap(handled) {
		t.Fatalf("%d messages fit while none was handled", sent)
	}
	close(release)
	for i := range sent {
		select {
		case got := <-handled:
			if got != strconv.Itoa(i) {
				t.Fatalf("message %s, want %d", got, i)
			}
		case <-time.After(patience):
			t.Fatalf("message %d did not come", i)
		}
	}
}

// Pins the kernel: the end of a datagram pair cannot be seen, and a reset is reported once. Otherwise
// the reader would spin.
func TestPairNeverEnds(t *testing.T) {
	receive, app, err := linux.CredentialsPair()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(receive)
	room := &linux.Datagram{Data: make([]byte, 10), OOB: make([]byte, linux.CredentialsOOB)}
	// It takes something unread in the app's end, which crank never sends.
	if _, err := syscall.Write(receive, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := disconnect(app); err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{syscall.ECONNRESET, syscall.EAGAIN, syscall.EAGAIN} {
		if err := linux.ReceiveDatagram(receive, room); !errors.Is(err, want) {
			t.Errorf("after a disconnect: %v, want %v", err, want)
		}
	}
	syscall.Close(app)
	for range 3 {
		if err := linux.ReceiveDatagram(receive, room); !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("after a close: %v, want %v", err, syscall.EAGAIN)
		}
	}
}

func TestResetIsNoEnd(t *testing.T) {
	r := open(t, directory(t))
	events := serve(r)
	if _, err := r.sockets[1].Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := disconnect(r.AppFD()); err != nil {
		t.Fatal(err)
	}
	// It can still speak to the address.
	if err := syscall.Sendto(r.AppFD(), []byte("READY=1"), 0, &syscall.SockaddrUnix{Name: r.Address()}); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); !e.Ready || e.PID != os.Getpid() {
		t.Errorf("got %+v", e)
	}
}

func TestControlTruncated(t *testing.T) {
	address := filepath.Join(directory(t), "s")
	fd, err := linux.CredentialsSocket(address)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	for room := 0; room <= 128; room += 4 {
		read, write := pipes(t, 3)
		send(t, dial(t, address), "READY=1", write...)
		closeAll(write)
		d := &linux.Datagram{Data: make([]byte, 10), OOB: make([]byte, room)}
		if err := linux.ReceiveDatagram(fd, d); err != nil {
			t.Fatal(err)
		}
		closeAll(d.Descriptors)
		for i, fd := range read {
			if !ended(t, fd) {
				t.Errorf("room %d: descriptor %d leaks", room, i)
			}
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	dir := directory(t)
	open(t, dir).Close() // warms up the poller
	files, routines := descriptors(t), runtime.NumGoroutine()
	for i := range 20 {
		r, err := Open([]string{dir, ""}[i%2], i)
		if err != nil {
			t.Fatal(err)
		}
		if i%4 < 2 {
			r.CloseAppEnd()
		}
		if i%5 > 0 {
			r.Serve(func(Sender, Message) {})
		}
		r.Close()
		r.Close()
		r.Serve(func(Sender, Message) { t.Error("called after Close") })
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
	if now := descriptors(t); now != files {
		t.Errorf("%d descriptors, before %d", now, files)
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > routines; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestCloseWaitsForHandle(t *testing.T) {
	r := open(t, directory(t))
	entered, release := make(chan struct{}), make(chan struct{})
	over := false
	r.Serve(func(Sender, Message) {
		close(entered)
		<-release
		over = true
	})
	c := dial(t, r.Address())
	for range 3 {
		send(t, c, "READY=1")
	}
	<-entered
	go func() {
		<-r.closing
		close(release)
	}()
	r.Close()
	if !over {
		t.Error("Close has returned before handle")
	}
}

func TestCloseLeavesAnothersFile(t *testing.T) {
	r := open(t, directory(t))
	if err := errors.Join(os.Remove(r.Address()), os.WriteFile(r.Address(), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := os.Stat(r.Address()); err != nil {
		t.Error(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func BenchmarkReceive(b *testing.B) {
	r, err := Open("", 1)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	handled := make(chan struct{}, 1)
	r.Serve(func(Sender, Message) { handled <- struct{}{} })
	c := dial(b, r.Address())
	text := []byte("WATCHDOG=1\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(text); err != nil {
			b.Fatal(err)
		}
		<-handled
	}
}

// TestIdle pins that what was sent before a process ended keeps Idle false until it was handled.
func TestIdle(t *testing.T) {
	r, err := Open(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if !r.Idle() {
		t.Error("not idle before anything was sent")
	}
	conn, err := net.Dial("unixgram", r.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	if r.Idle() {
		t.Error("idle with a message in the socket")
	}
	handling, proceed := make(chan struct{}), make(chan struct{})
	r.Serve(func(Sender, Message) { close(handling); <-proceed })
	<-handling
	if r.Idle() {
		t.Error("idle while a message is handled")
	}
	close(proceed)
	for !r.Idle() {
		time.Sleep(time.Millisecond)
	}
}

// Whoever can write to the directory can put a link in the place of a new socket: the mode of what it points to stays. This
// attacks as fast as it can.
func TestLinkInThePlaceOfTheSocket(t *testing.T) {
	dir := directory(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan int, 1)
	go func() {
		replaced := 0
		for {
			select {
			case <-done:
				ended <- replaced
				return
			default:
			}
			names, _ := filepath.Glob(filepath.Join(dir, "notify-*"))
			for _, name := range names {
				if os.Symlink(victim, dir+"/link") == nil && os.Rename(dir+"/link", name) == nil {
					replaced++
				}
			}
		}
	}()
	for range 1000 {
		if r, err := Open(dir, 1); err == nil {
			r.Close()
		}
		os.Remove(dir + "/link")
		left, _ := filepath.Glob(filepath.Join(dir, "notify-*"))
		for _, name := range left {
			os.Remove(name)
		}
		if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the victim: %v, %v", info.Mode(), err)
		}
	}
	close(done)
	if <-ended == 0 {
		t.Error("the attack has not taken place")
	}
}
