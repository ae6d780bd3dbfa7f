package saved

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/leak"
	"github.com/crankctl/crank/test/root"
)

// patience is how long something may take that should happen at once, on a busy machine.
const patience = 30 * time.Second

func TestWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	w := New(path, logr.Discard())
	defer w.Close(patience)
	for _, rec := range []Record{full, numbered(1), numbered(2)} {
		wait(t, w.Save(rec), nil)
		got, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rec, got); diff != "" {
			t.Error(diff)
		}
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v", fi.Mode())
	}
	onlyFile(t, path)
}

// A file that has the same content already is not written again, and any other is.
func TestWriterSame(t *testing.T) {
	path := saveOne(t, t.TempDir())
	first, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	saveOne(t, filepath.Dir(path))
	if again, err := os.Lstat(path); err != nil || !os.SameFile(first, again) {
		t.Errorf("the file was written again, error %v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // somebody else may write to it at any moment
		t.Fatal(err)
	}
	saveOne(t, filepath.Dir(path))
	if safe, err := os.Lstat(path); err != nil || safe.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, error %v", safe.Mode(), err)
	}
	stillThere(t, path)
}

func TestWriterOff(t *testing.T) {
	w := New("", logr.Discard())
	if w.Save(full) != nil {
		t.Error("there is something to wait for")
	}
	if err := w.Close(0); err != nil {
		t.Error(err)
	}
}

// However many ask at once, the newest wins and every one of them gets an answer.
func TestWriterNewestWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	w := New(path, logr.Discard())
	const last = 500
	var results []<-chan error
	for i := range last + 1 {
		results = append(results, w.Save(numbered(i)))
	}
	if err := w.Close(patience); err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		wait(t, result, nil)
	}
	if rec, err := Load(path); err != nil || number(t, rec) != last {
		t.Errorf("the file holds %v (%v), want number %d", rec, err, last)
	}
	wait(t, w.Save(full), ErrClosed)
	if err := w.Close(patience); err != nil {
		t.Error("the second Close:", err)
	}
}

func TestWriterFromMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	w := New(path, logr.Discard())
	defer w.Close(patience)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				if err := <-w.Save(numbered(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	onlyFile(t, path)
}

func TestWriterRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	w := New(path, logr.Discard())
	defer w.Close(patience)
	for name, rec := range map[string]Record{
		"nothing":      {},
		"latin-1":      {Command: supervisor.Command{Argv: []string{"/caf\xe9"}}},
		"latin-1 base": {Base: []string{"\xff"}, Command: full.Command},
		"too large":    {Command: supervisor.Command{Argv: []string{"/app", strings.Repeat("x", MaxSize)}}},
	} {
		if err := <-w.Save(rec); err == nil {
			t.Errorf("%s: it was saved", name)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("there is a file:", err)
	}
}

// A directory that comes later is found by the next Save: nothing else retries.
func TestWriterRecovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "web.conf")
	w := New(path, logr.Discard())
	defer w.Close(patience)
	wait(t, w.Save(full), fs.ErrNotExist)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wait(t, w.Save(full), nil)
	onlyFile(t, path)
}

// What cannot be replaced by a rename leaves no temporary file.
func TestWriterRenameFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	w := New(path, logr.Discard())
	defer w.Close(patience)
	if err := <-w.Save(full); err == nil {
		t.Error("it was saved")
	}
	onlyFile(t, path)
}

// A file that crank did not write is left alone, whatever it is, and the next Save after its removal works.
func TestWriterForeign(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	for name, make := range map[string]func(path string) error{
		"a configuration": func(path string) error { return os.WriteFile(path, []byte("listen: 80\n"), 0o600) },
		"empty":           func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a symlink": func(path string) error {
			return errors.Join(os.WriteFile(victim, []byte("mine"), 0o600), os.Symlink(victim, path))
		},
		"dangling":    func(path string) error { return os.Symlink("/nowhere/at/all", path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a fifo":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.conf")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			w := New(path, logr.Discard())
			defer w.Close(patience)
			wait(t, w.Save(full), ErrForeign)
			if err := w.Err(); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) {
				t.Errorf("Err is %v", err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || after.ModTime() != before.ModTime() || after.Size() != before.Size() {
				t.Errorf("it was changed: %v, %v", after, err)
			}
			onlyFile(t, path)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			wait(t, w.Save(full), nil)
			if err := w.Err(); err != nil {
				t.Errorf("Err is %v", err)
			}
		})
	}
	if got, _ := os.ReadFile(victim); string(got) != "mine" {
		t.Errorf("the file behind the symlink holds %q", got)
	}
}

// A file that is renamed to the path while crank writes exists afterwards, whichever came first.
func TestWriterForeignMeanwhile(t *testing.T) {
	dir := t.TempDir()
	path, mine := filepath.Join(dir, "web.conf"), filepath.Join(dir, "mine")
	w := New(path, logr.Discard())
	defer w.Close(patience)
	saved, refused := 0, 0
	for n := range 200 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		wait(t, w.Save(numbered(0)), nil)
		content := fmt.Sprintf("mine %d", n)
		if err := os.WriteFile(mine, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		renamed := make(chan error, 1)
		go func() {
			for begin, delay := time.Now(), rand.N(2*time.Millisecond); time.Since(begin) < delay; {
			}
			renamed <- os.Rename(mine, path)
		}()
		err := <-w.Save(numbered(1 + n))
		if err := <-renamed; err != nil {
			t.Fatal(err)
		}
		switch {
		case err == nil:
			saved++
		case errors.Is(err, ErrForeign):
			refused++
		default:
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); string(got) != content {
			t.Fatalf("round %d: the file holds %.40q (%v), want %q", n, got, err, content)
		}
	}
	t.Logf("saved before it came %d times, refused %d times", saved, refused)
	onlyFile(t, path)
}

func TestRemoveStale(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.conf")
	w := &Writer{path: path}
	stale := w.tempPrefix() + randomName()
	marked, foreign := w.tempPrefix()+randomName(), w.tempPrefix()+randomName()
	for name, content := range map[string]string{marked: `{"crank": "saved command", "vers`, foreign: "mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep := []string{
		"web.conf.failed",
		w.tempPrefix() + "notes",
		w.tempPrefix() + randomName() + "00",
		(&Writer{path: "blue.conf"}).tempPrefix() + randomName(),
	}
	for _, name := range append(keep, stale) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	directory := w.tempPrefix() + randomName()
	if err := os.Mkdir(filepath.Join(dir, directory), 0o700); err != nil {
		t.Fatal(err)
	}
	saveOne(t, dir)
	for _, name := range append(keep, directory, foreign) {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error("removed:", err)
		}
	}
	for _, name := range []string{stale, marked} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Error("not removed:", name, err)
		}
	}
}

// Disks as bad as a test can make them: the error is told, the old file stays, nothing is left.
func TestWriterBadDisk(t *testing.T) {
	const other = 12345
	t.Run("file size limit", func(t *testing.T) {
		path := saveOne(t, t.TempDir())
		check(t, runHelper(t, helper{name: "save-limited", path: path}), syscall.EFBIG)
		stillThere(t, path)
	})
	t.Run("no permission", func(t *testing.T) {
		dir := sharedDir(t)
		path := saveOne(t, dir)
		if err := os.Chmod(dir, 0o555); err != nil {
			t.Fatal(err)
		}
		h := helper{name: "save", path: path}
		if os.Geteuid() == 0 {
			root.Need(t) // user 0 without the rights of root may still bypass permissions
			h.uid = other
		}
		check(t, runHelper(t, h), syscall.EACCES)
		stillThere(t, path)
	})
	t.Run("full", func(t *testing.T) {
		inMountNamespace(t, "save-full", syscall.ENOSPC)
	})
	t.Run("read-only", func(t *testing.T) {
		inMountNamespace(t, "save-readonly", syscall.EROFS)
	})
}

// inMountNamespace has a tmpfs of 64 KiB made for the helper. Where the kernel allows neither root
// nor anybody else to mount, there is nothing to see; the other bad disks are tested everywhere.
func inMountNamespace(t *testing.T, name string, want error) {
	got := runHelper(t, helper{name: name, path: filepath.Join(t.TempDir(), "web.conf"), mount: true})
	if got == "cannot mount" {
		t.Log("no mount namespace here")
		return
	}
	check(t, got, want)
}

// A crank that is killed while it writes leaves a whole file: the last one or the one before.
func TestWriterKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	newest := 0
	for round := range 50 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = helper{name: "save-forever", path: path, from: newest}.env()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rand.IntN(20) { // so many are on disk
			if !lines.Scan() {
				t.Fatal("the writer ended by itself")
			}
			newest, _ = strconv.Atoi(lines.Text())
		}
		for begin, delay := time.Now(), rand.N(500*time.Microsecond); time.Since(begin) < delay; {
		}
		cmd.Process.Kill()
		for lines.Scan() {
			newest, _ = strconv.Atoi(lines.Text())
		}
		cmd.Wait()

		rec, err := Load(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if got := number(t, rec); got != newest && got != newest+1 {
			t.Fatalf("round %d: the file holds %d, the last answer was for %d", round, got, newest)
		}
	}
	saveOne(t, filepath.Dir(path))
	onlyFile(t, path)
}

// numbered is a record of several pages, so that a write in parts would be seen.
func numbered(n int) Record {
	return Record{Command: supervisor.Command{Argv: []string{"/app", strconv.Itoa(n), strings.Repeat("x", 20_000), strconv.Itoa(n)}}}
}

func number(t *testing.T, rec Record) int {
	t.Helper()
	n, err := strconv.Atoi(rec.Command.Argv[1])
	if err != nil || rec.Command.Argv[3] != rec.Command.Argv[1] {
		t.Fatal("not whole:", rec)
	}
	return n
}

func wait(t *testing.T, result <-chan error, want error) {
	t.Helper()
	select {
	case err := <-result:
		if !errors.Is(err, want) {
			t.Fatalf("error is %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
}

// onlyFile checks that nothing is left beside the file.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory holds %v (%v)", entries, err)
	}
}

func saveOne(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "web.conf")
	w := New(path, logr.Discard())
	defer w.Close(patience)
	wait(t, w.Save(numbered(1)), nil)
	return path
}

func stillThere(t *testing.T, path string) {
	t.Helper()
	if rec, err := Load(path); err != nil || number(t, rec) != 1 {
		t.Errorf("the old file is gone: %v %v", rec, err)
	}
	onlyFile(t, path)
}

func check(t *testing.T, got string, want error) {
	t.Helper()
	if !strings.HasSuffix(got, want.Error()) {
		t.Errorf("the helper said %q, want %v", got, want)
	}
}

// sharedDir is a directory that other users reach.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "saved")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Chmod(dir, 0o700)
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// helper is this test binary as another process.
type helper struct {
	name, path string
	uid        int  // 0: the same
	from       int  // of save-forever
	mount      bool // in a mount namespace of its own
}

var helpers = map[string]func(helper) string{
	"load":          helpLoad,
	"save":          helpSave,
	"save-limited":  helpSaveLimited,
	"save-full":     helpSaveFull,
	"save-readonly": helpSaveReadOnly,
	"save-forever":  helpSaveForever,
}

func TestMain(m *testing.M) {
	name := os.Getenv("SAVED_HELPER")
	if name == "" {
		os.Exit(leak.Main(m))
	}
	h := helper{name: name, path: os.Getenv("SAVED_PATH")}
	h.from, _ = strconv.Atoi(os.Getenv("SAVED_FROM"))
	fmt.Println(helpers[name](h))
}

func (h helper) env() []string {
	return append(os.Environ(), "GORACE=atexit_sleep_ms=0", "SAVED_HELPER="+h.name, "SAVED_PATH="+h.path, "SAVED_FROM="+strconv.Itoa(h.from))
}

func runHelper(t *testing.T, h helper) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = h.env(), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if h.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)}
	}
	if h.mount {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		if os.Geteuid() != 0 {
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
		}
	}
	out, err := cmd.Output()
	if h.mount && errors.Is(err, syscall.EPERM) {
		return "cannot mount"
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func helpLoad(h helper) string {
	_, err := Load(h.path)
	switch {
	case errors.Is(err, ErrUnsafe):
		return "unsafe"
	case err != nil:
		return err.Error()
	}
	return "ok"
}

func helpSave(h helper) string {
	w := New(h.path, logr.Discard())
	defer w.Close(patience)
	return fmt.Sprint(<-w.Save(numbered(2)))
}

// helpSaveLimited also lives through SIGXFSZ, which would end a C program.
func helpSaveLimited(h helper) string {
	limit := syscall.Rlimit{Cur: 4096, Max: 4096}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err.Error()
	}
	return helpSave(h)
}

func helpSaveFull(h helper) string { return onTmpfs(h, "size=64k", 0, fill) }

func helpSaveReadOnly(h helper) string {
	return onTmpfs(h, "size=64k", syscall.MS_REMOUNT|syscall.MS_RDONLY, nil)
}

// onTmpfs saves one record on a small disk, makes that disk bad, and tries to save another.
func onTmpfs(h helper, options string, remount uintptr, spoil func(dir string)) string {
	dir := filepath.Dir(h.path)
	if syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") != nil ||
		syscall.Mount("tmpfs", dir, "tmpfs", 0, options) != nil {
		return "cannot mount"
	}
	w := New(h.path, logr.Discard())
	defer w.Close(patience)
	if err := <-w.Save(numbered(1)); err != nil {
		return err.Error()
	}
	if remount != 0 {
		if err := syscall.Mount("", dir, "", remount, options); err != nil {
			return err.Error()
		}
	}
	if spoil != nil {
		spoil(dir)
	}
	result := fmt.Sprint(<-w.Save(numbered(2)))
	if spoil != nil {
		os.Remove(filepath.Join(dir, "filler"))
	}
	rec, err := Load(h.path)
	entries, _ := os.ReadDir(dir)
	if err != nil || rec.Command.Argv[1] != "1" || len(entries) != 1 {
		return fmt.Sprintf("afterwards: %v, %d files, %s", err, len(entries), result)
	}
	return result
}

func fill(dir string) {
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		return
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
}

func helpSaveForever(h helper) string {
	w := New(h.path, logr.Discard())
	for n := h.from + 1; ; n++ {
		if err := <-w.Save(numbered(n)); err != nil {
			return err.Error()
		}
		fmt.Println(n)
	}
}
