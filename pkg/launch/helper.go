package launch

import (
	"github.com/crankctl/crank/pkg/execvp"
	"github.com/crankctl/crank/pkg/output"
	"github.com/crankctl/crank/pkg/proc"
	"github.com/crankctl/crank/pkg/supervisor"
)

// A helper is a program that is run for a generation beside its app: the check before it, and the probes of it. It has
// the app's working directory and environment, so that it counts as the generation's own process, but no socket
// and nobody to notify. It is executed as it stands, without a shell.

// Check implements supervisor.Launcher. What the check writes, to stdout as well as to stderr, goes where the
// app's stderr goes, and its end is kept: some programs complain of a configuration on the one, some on the other.
func (l *Launcher) Check(id supervisor.ID, c supervisor.Command, argv []string, protect bool) (supervisor.Child, error) {
	mode := output.Auto
	if l.cfg.Output == output.Tag {
		mode = output.Tag
	}
	ch, err := l.help(id, c, argv, protect, mode, l.cfg.Stderr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.children[id.Generation] = ch
	l.mu.Unlock()
	return ch, nil
}

// Probe implements supervisor.Launcher. Of what the probe writes only the end of stderr is kept; nothing is passed on,
// since probes are many.
func (l *Launcher) Probe(id supervisor.ID, c supervisor.Command, argv []string, protect bool) (supervisor.Child, error) {
	ch, err := l.help(id, c, argv, protect, output.Auto, l.nowhere)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.probes[ch.PID()] = ch
	l.mu.Unlock()
	return ch, nil
}

// help starts a helper that writes to a destination.
func (l *Launcher) help(id supervisor.ID, c supervisor.Command, argv []string, protect bool, mode output.Mode, to *output.Destination) (*child, error) {
	env := l.environ(id, c, nil)
	ch := &child{l: l, generation: id.Generation}
	var err error
	ch.streams, err = output.Start(mode, output.Options{
		Name: l.cfg.Name, Generation: id.Generation, Stdout: to, Stderr: to, KeepStderr: true, OnLoss: l.warnOfLoss,
	})
	if err != nil {
		return nil, err
	}
	null, stderr := l.null, ch.streams.AppStderr()
	stdout := stderr
	if to == l.nowhere {
		stdout = null
	}
	ch.launched, err = l.fork(proc.Spec{
		Path: argv[0], Search: execvp.Path(env), Argv: argv, Env: env, Dir: l.dir(c), Files: []int{null, stdout, stderr}, NoNewPrivs: l.cfg.NoNewPrivs,
	}, protect)
	if err != nil {
		ch.streams.Close(0)
		return nil, err
	}
	ch.main = ch.launched
	l.alone = false
	ch.streams.CloseAppEnds()
	ch.streams.SetPID(ch.PID())
	return ch, nil
}

// Members returns the processes of generation n that run, besides its probes; the main one is the first. It may be
// called from any goroutine except the supervisor's, and blocks like Owner.
func (l *Launcher) Members(n int) []int {
	l.mu.Lock()
	ch := l.children[n]
	l.mu.Unlock()
	if ch == nil {
		return nil
	}
	pids := []int{ch.mainPID()}
	for _, e := range ch.members() {
		pids = append(pids, e.PID)
	}
	return pids
}
