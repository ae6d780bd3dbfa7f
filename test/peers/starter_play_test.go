package peers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// swaps sends HUP. The old worker's signal is seen only after an answer of the new one.
func swaps(s *server) (string, error) {
	if err := s.p.send(syscall.SIGHUP); err != nil {
		return "", err
	}
	if _, err := s.other(); err != nil {
		return "", err
	}
	number, err := s.p.line("signal")
	number, to, _ := strings.Cut(number, " to ")
	if to != s.first {
		err = errors.Join(err, fmt.Errorf("signal %s went to %s, not to %s", number, to, s.first))
	}
	return "the new worker answers, then the old one gets " + number, err
}

// generations follows a swap in the status file, or with crankctl ps.
func generations(s *server) (string, error) {
	running := func() string {
		if s.r.who == crank {
			return s.listed()
		}
		text, _ := os.ReadFile(filepath.Join(s.r.dir, "status"))
		var all []string
		for line := range strings.Lines(string(text)) {
			generation, _, _ := strings.Cut(line, ":")
			all = append(all, generation)
		}
		return strings.Join(all, " ")
	}
	see := func(want string) error {
		return eventually(func() error {
			if got := running(); got != want {
				return fmt.Errorf("generations %q run, want %q", got, want)
			}
			return nil
		})
	}
	err := errors.Join(see("1"), s.mark("hold", true), s.p.send(syscall.SIGHUP), see("1 2"), s.mark("hold", false), see("2"))
	return "1, then 1 2, then 2", err
}

// listed returns the generations that crankctl ps lists.
func (s *server) listed() string {
	out, err := s.crankctl("ps", "-o", "json")
	var list []struct{ Generation int }
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, g := range list {
		all = append(all, strconv.Itoa(g.Generation))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// newOneFails: crank logs that the generation failed; another HUP is then the only other attempt.
func newOneFails(s *server) (string, error) {
	if err := errors.Join(s.mark("broken", true), s.p.send(syscall.SIGHUP)); err != nil {
		return "", err
	}
	old := func(err error) error {
		pid, err2 := s.ask()
		if err = errors.Join(err, err2); err == nil && pid != s.first {
			err = fmt.Errorf("%s answers, want %s", pid, s.first)
		}
		return errors.Join(err, s.mark("broken", false))
	}
	if s.r.who != crank {
		err := old(s.starts(3))
		_, err2 := s.other()
		return "the old one answers; attempts until one lives", errors.Join(err, err2)
	}
	err := old(eventually(func() error {
		if !strings.Contains(s.p.stderr.String(), "generation failed") {
			return fmt.Errorf("crank says %s", &s.p.stderr)
		}
		return nil
	}))
	if err := errors.Join(err, s.p.send(syscall.SIGHUP)); err != nil {
		return "", err
	}
	_, err = s.other()
	if n := s.count("starts"); n != 3 {
		err = errors.Join(err, fmt.Errorf("%d workers have been started, want 3", n))
	}
	return "the old one answers; no second attempt", err
}

// firstFails has the workers end immediately, in this way, until the second one.
func firstFails(how string) func(*run) (string, error) {
	return func(r *run) (string, error) {
		if err := os.WriteFile(filepath.Join(r.dir, how), nil, 0o644); err != nil {
			return "", err
		}
		s, err := r.launch()
		if err != nil {
			return "", err
		}
		if r.who == crank {
			code, err := s.p.end()
			return "crank ends: " + code, err
		}
		err = errors.Join(s.starts(2), s.mark(how, false))
		_, err2 := s.p.line("ready")
		return "attempts until one lives", errors.Join(err, err2)
	}
}

// killed sends KILL to the worker.
func killed(s *server) (string, error) {
	if err := killWorker(s); err != nil {
		return "", err
	}
	if s.r.want != "another one is started" {
		code, err := s.p.end()
		return "crank ends: " + code, err
	}
	_, err := s.other()
	return "another one is started", err
}

// bothAnswer asks until the new worker and then the old one has answered.
func bothAnswer(s *server) (string, error) {
	if err := s.p.send(syscall.SIGHUP); err != nil {
		return "", err
	}
	_, err := s.other()
	err = errors.Join(err, eventually(func() error {
		if pid, err := s.ask(); err != nil || pid != s.first {
			return fmt.Errorf("only %s answers: %w", pid, err)
		}
		return nil
	}))
	if err != nil {
		return "", err
	}
	number, err := s.p.line("signal")
	number, _, _ = strings.Cut(number, " ")
	return "both answer, then the old one gets " + number, err
}

// changes waits for a worker that nobody asked for.
func changes(s *server) (string, error) {
	if err := s.ready(); err != nil {
		return "", err
	}
	_, err := s.other()
	return "a new worker answers", err
}

// restart returns the command that asks for a swap and waits. It runs outside of the namespace, where start_server has another pid than
// the one in its file.
func (s *server) restart() (*exec.Cmd, error) {
	if s.r.who == crank {
		return exec.Command(filepath.Join(bin, "crankctl"), "-ctl", filepath.Join(s.r.dir, "ctl"), "reload"), nil
	}
	path, status := filepath.Join(s.r.dir, "outside"), filepath.Join(s.r.dir, "status")
	err := errors.Join(os.WriteFile(path, fmt.Appendln(nil, s.p.pid), 0o644), eventually(func() error {
		_, err := os.Stat(status)
		return err
	}))
	return exec.Command(s.r.path, "--restart", "--pid-file="+path, "--status-file="+status), err
}

func restartCommand(s *server) (string, error) {
	cmd, err := s.restart()
	if err != nil {
		return "", err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return map[bool]string{true: "the new worker serves when it returns", false: "returns too early"}[s.count("serves") == 2], nil
}

// restartWaits keeps the old worker until the command has returned, where that is what it does.
func restartWaits(s *server) (string, error) {
	cmd, err := s.restart()
	if err == nil {
		err = errors.Join(s.mark("hold", true), cmd.Start())
	}
	if err != nil {
		return "", err
	}
	if strings.Contains(s.r.want, "before") {
		err := cmd.Wait()
		return "returns before the old one has ended", errors.Join(err, s.mark("hold", false))
	}
	_, err = s.p.line("signal")
	if err := errors.Join(err, s.mark("hold", false), cmd.Wait()); err != nil {
		return "", err
	}
	_, err = s.p.line("end " + s.first)
	return "returns after the old one has ended", err
}

// earlyClient connects while the worker does not accept.
func earlyClient(r *run) (string, error) {
	if err := os.WriteFile(filepath.Join(r.dir, "wait"), nil, 0o644); err != nil {
		return "", err
	}
	s, err := r.launch()
	if err != nil {
		return "", err
	}
	if _, err := s.p.line("PORT"); err != nil {
		return "", err
	}
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+s.port, patience)
	if err != nil {
		return "is refused", nil
	}
	defer conn.Close()
	if err := s.mark("wait", false); err != nil {
		return "", err
	}
	conn.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(conn)
	return map[bool]string{true: "is connected, and answered later", false: "is not answered"}[len(text) > 0], err
}

func unixEnds(s *server) (string, error) {
	path := filepath.Join(s.r.dir, "s")
	if _, err := get("unix", path); err != nil {
		return "", err
	}
	if err := s.p.send(syscall.SIGTERM); err != nil {
		return "", err
	}
	if _, err := s.p.end(); err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		return "answers; at the end its path is there", err
	}
	return "answers; at the end its path is gone", nil
}

func unixMode(s *server) (string, error) {
	info, err := os.Stat(filepath.Join(s.r.dir, "s"))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%04o", info.Mode().Perm()), nil
}

// inTheWay starts the program while something is at the path of its socket, and checks whether it is still there.
func inTheWay(put func(path string) (io.Closer, error)) func(*run) (string, error) {
	return func(r *run) (string, error) {
		path := filepath.Join(r.dir, "s")
		thing, err := put(path)
		if err != nil {
			return "", err
		}
		defer thing.Close()
		before, err := os.Stat(path)
		if err := errors.Join(err, os.Link(path, path+".old")); err != nil { // so that nobody else gets its inode
			return "", err
		}
		s, err := r.launch()
		if err != nil {
			return "", err
		}
		outcome := "replaced"
		if strings.Contains(r.want, "crank ends") {
			code, err := s.p.end()
			if err != nil {
				return "", err
			}
			outcome = "kept; crank ends: " + code
		} else if err := s.ready(); err != nil {
			return "", err
		}
		after, err := os.Stat(path)
		if err != nil || os.SameFile(before, after) != strings.HasPrefix(outcome, "kept") {
			return "", fmt.Errorf("%s, but the path is the same: %v, %w", outcome, os.SameFile(before, after), err)
		}
		return outcome, nil
	}
}

// ends sends a signal and has the worker take its time.
func ends(sig syscall.Signal) func(*server) (string, error) {
	return func(s *server) (string, error) {
		if err := errors.Join(s.mark("hold", true), s.p.send(sig)); err != nil {
			return "", err
		}
		number, err := s.p.line("signal")
		if err := errors.Join(err, s.mark("hold", false)); err != nil {
			return "", err
		}
		number, _, _ = strings.Cut(number, " ")
		code, err := s.p.end()
		if !slices.Contains(s.p.rest(), "end "+s.first) {
			return "it gets " + number + ", and is not waited for", err
		}
		return fmt.Sprintf("it gets %s, and is waited for: %s", number, code), err
	}
}

// twice sends TERM again once the worker has it. USR2 from the test ends the worker.
func twice(s *server) (string, error) {
	worker, err := s.p.app("player")
	if err := errors.Join(err, s.p.send(syscall.SIGTERM)); err != nil {
		return "", err
	}
	if _, err := s.p.line("signal 15"); err != nil {
		return "", err
	}
	if err := s.p.send(syscall.SIGTERM); err != nil {
		return "", err
	}
	outcome := "it gets one"
	if s.r.want == "it gets both" {
		if _, err := s.p.line("signal 15"); err != nil {
			return "", err
		}
		outcome = s.r.want
	}
	if err := syscall.Kill(worker, syscall.SIGUSR2); err != nil {
		return "", err
	}
	next, err := s.p.line("signal")
	if !strings.HasPrefix(next, "12 ") {
		return "it gets more: " + next, err
	}
	return outcome, err
}

func pidFile(s *server) (string, error) {
	if err := s.ready(); err != nil {
		return "", err
	}
	path := filepath.Join(s.r.dir, "pid")
	text, err := os.ReadFile(path)
	if err := errors.Join(err, s.p.send(syscall.SIGTERM)); err != nil {
		return "", err
	}
	if _, err := s.p.end(); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) || len(text) == 0 {
		return "left behind", nil
	}
	return "written, and removed at the end", nil
}

// another starts the program again, with the same options.
func another(s *server) (string, error) {
	second, err := s.r.execute(s.p.argv)
	if err != nil {
		return "", err
	}
	code, err := second.end()
	if pid, err2 := s.ask(); err2 != nil || pid != s.first {
		return "", fmt.Errorf("%q answers: %w", pid, errors.Join(err, err2))
	}
	return "it ends: " + code + "; the first one answers", err
}
