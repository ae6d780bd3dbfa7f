// Package output passes on what the app writes to stdout and stderr, and keeps the end of it.
package output

import (
	"fmt"
	"time"
)

// Mode is what happens to the app's output.
type Mode string

// The modes.
const (
	Auto    Mode = "auto"    // stdout inherited; stderr copied byte for byte, in whole lines, where KeepStderr, else inherited
	Inherit Mode = "inherit" // both inherited
	Tag     Mode = "tag"     // both copied, with a prefix to each line
)

// notKept is said where stderr goes past crank.
const notKept = "stderr not kept"

// Options is what Start needs to know besides the mode. Stdout and Stderr are needed where something
// is copied to them.
type Options struct {
	Name           string // of the instance
	Generation     int
	Stdout, Stderr *Destination
	KeepStderr     bool // for Auto: stderr is no terminal and there is a -bind
	// OnLoss, unless nil, is called each time something could not be written to one of them. It must not block.
	OnLoss func(to *Destination, cause error)
}

// Streams is the output of one generation. Its methods are for one goroutine, except Tail, Flush and
// Done.
//
// A destination that nobody reads stops the copying, and the app as soon as its pipe is full, as it
// would without crank. One that is broken or full does not: what cannot be written is dropped.
type Streams struct {
	stdout, stderr *stream // nil: inherited
	tail           Tail
	options        Options
	tag            bool
	done           chan struct{}
	started        bool
}

// Start makes what the mode needs for one generation. The caller gives AppStdout and AppStderr to the
// child, then calls CloseAppEnds and SetPID, or Close alone if there is no child.
func Start(mode Mode, o Options) (*Streams, error) {
	s := &Streams{options: o, tag: mode == Tag, done: make(chan struct{})}
	var err error
	switch mode {
	case Inherit:
	case Auto:
		if o.KeepStderr {
			s.stderr, err = newStream("stderr", &s.tail)
		}
	case Tag:
		if s.stdout, err = newStream("stdout", nil); err == nil {
			s.stderr, err = newStream("stderr", &s.tail)
		}
	default:
		return nil, fmt.Errorf("cannot use output mode %q: -output is %s, %s or %s", mode, Auto, Inherit, Tag)
	}
	if err != nil {
		s.Close(0)
		return nil, err
	}
	return s, nil
}

// AppStdout returns the descriptor that is to be the child's stdout, blocking and close-on-exec, or -1:
// the child inherits crank's, or CloseAppEnds was called.
func (s *Streams) AppStdout() int { return s.stdout.appEnd() }

// AppStderr is AppStdout for stderr.
func (s *Streams) AppStderr() int { return s.stderr.appEnd() }

// CloseAppEnds closes AppStdout and AppStderr: to be called when the child has its copies.
func (s *Streams) CloseAppEnds() {
	for _, st := range s.streams() {
		st.closeAppEnd()
	}
}

// SetPID names the process in the prefix and starts the copying. It is to be called once, in every mode;
// what the app writes before waits in its pipe.
func (s *Streams) SetPID(pid int) {
	if s.started {
		return
	}
	s.started = true
	s.stdout.start(s.sink(s.options.Stdout, "out", pid))
	s.stderr.start(s.sink(s.options.Stderr, "err", pid))
	copied := s.streams()
	if len(copied) == 0 {
		close(s.done)
		return
	}
	go func() { // ends with the streams, as Close sees to
		for _, st := range copied {
			<-st.done
		}
		close(s.done)
	}()
}

func (s *Streams) sink(d *Destination, stream string, pid int) sink {
	w := d.Writer()
	if s.options.OnLoss != nil {
		w.onLoss = func(cause error) { s.options.OnLoss(d, cause) }
	}
	if s.tag {
		return newTagger(w, s.options.Name, s.options.Generation, pid, stream)
	}
	return &lines{to: w}
}

// Tail returns the last lines of stderr, and why there are none where it is not kept.
func (s *Streams) Tail() (lines []string, note string) {
	if s.stderr == nil {
		return nil, notKept
	}
	return s.tail.Lines(), ""
}

// Flush waits until all that was in the pipe of stderr when it was called is in Tail, and returns false
// if that took longer than timeout. To be called when the process has ended and SetPID was called. It
// does not wait for processes that still have the pipe open, nor for what they write later.
func (s *Streams) Flush(timeout time.Duration) bool { return s.stderr.flush(timeout) }

// Done is closed when no process has the pipes open anymore and all of their contents is passed on, or
// when Close has ended the copying. Where all is inherited, that is at once after SetPID.
func (s *Streams) Done() <-chan struct{} { return s.done }

// Close passes on what is in the pipes, ends the copying even if processes still have them open (their
// next write gets EPIPE), and closes all descriptors. It is for when crank ends: Done comes by itself for
// a generation that has ended. It returns false if that was not possible within grace, because nobody
// reads crank's output or somebody does not stop to write; a goroutine may then stay behind in a write.
func (s *Streams) Close(grace time.Duration) bool {
	s.CloseAppEnds()
	if !s.started {
		s.started = true
		for _, st := range s.streams() {
			st.read.Close()
		}
		close(s.done)
		return true
	}
	for _, st := range s.streams() {
		st.finish()
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-s.done:
		return true
	case <-timer.C:
	}
	for _, st := range s.streams() {
		st.read.Close()
	}
	return false
}

func (s *Streams) streams() []*stream {
	var all []*stream
	for _, st := range []*stream{s.stdout, s.stderr} {
		if st != nil {
			all = append(all, st)
		}
	}
	return all
}
