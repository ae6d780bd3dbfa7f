package apps

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
	"github.com/crankctl/crank/test/instance"
)

var number = regexp.MustCompile(`generation (\d+)`)

// generation is the one that gave this answer, 0 for none.
func generation(body string) (n int) {
	if m := number.FindStringSubmatch(body); m != nil {
		n, _ = strconv.Atoi(m[1])
	}
	return n
}

// row is what the clients of one program saw while it was swapped.
type row struct {
	language string
	way      string
	swaps    int
	requests int
	lost     map[string]int // by the kind of client
	errors   []string       // of the first that were lost
	underWay int            // slow requests that were answered by a generation that had been asked to stop before
	answered map[int]bool   // by generation
}

func howMany() int {
	if *all {
		return 20
	}
	return 5
}

// killedAfter is the limit for those that would never end while they have clients.
func killedAfter() string {
	if *all {
		return "30s" // crank's default
	}
	return "5s"
}

// The clients.
const (
	keeping = "keeps its connection"
	once    = "one connection each"
	waiting = "slow"
)

// swap swaps a program under load until no generation but the last is left. An answer that takes longer than tooLate is
// lost.
func (p program) swap(t *testing.T, language, way string, tooLate time.Duration, command []string) *row {
	i := instance.Start(t, bin, slices.Concat(p.flags, []string{"-max-draining", "0", "-stop", killedAfter()}), command...)
	load := map[string]*hammer.Run{
		keeping: hammer.Start(hammer.Load{Network: "tcp", Address: i.Address, KeepAlive: 4, Timeout: tooLate}),
		once:    hammer.Start(hammer.Load{Network: "tcp", Address: i.Address, Short: 2, Pause: time.Millisecond, Timeout: tooLate}),
	}
	r := &row{language: language, way: way, swaps: howMany(), lost: map[string]int{}, answered: map[int]bool{}}
	var slow []*slowly
	for n := range r.swaps {
		s := begin(i.Address, p.slow, n+1, tooLate)
		i.Crankctl("reload")
		s.enough()
		slow = append(slow, s)
	}
	i.Crankctl("wait", "-idle")
	for kind, run := range load {
		report := run.Stop()
		r.count(kind, report.Requests, report.Errors, report.Lost)
		for body := range report.Bodies {
			r.answered[generation(body)] = true
		}
	}
	for _, s := range slow {
		s.clients.Wait()
		r.count(waiting, s.requests, s.errors, len(s.errors))
		r.underWay += s.underWay
	}
	i.Terminate()
	<-i.Ended()
	return r
}

func (r *row) count(kind string, requests int, errors []string, lost int) {
	r.requests += requests
	r.lost[kind] += lost
	for _, err := range errors {
		r.errors = append(r.errors, kind+": "+err)
	}
}

// judge fails the test if anything was lost, or if the load has not shown that nothing can be.
func (r *row) judge(t *testing.T) *row {
	t.Helper()
	if lost := r.sum(); lost > 0 {
		t.Errorf("%d of %d requests were lost:\n%s", lost, r.requests, strings.Join(r.errors, "\n"))
	}
	for n := range r.swaps + 1 {
		if !r.answered[n+1] {
			t.Errorf("no answer from generation %d", n+1)
		}
	}
	if r.underWay == 0 {
		t.Error("no slow request was under way at any swap")
	}
	return r
}

func (r *row) sum() (lost int) {
	for _, n := range r.lost {
		lost += n
	}
	return lost
}

// slowly are the slow requests of one swap.
type slowly struct {
	address string
	path    string
	from    int // the generation that is replaced
	tooLate time.Duration
	stop    chan struct{} // closed when no further one shall begin
	clients sync.WaitGroup

	mu       sync.Mutex
	stopped  bool
	requests int
	underWay int
	errors   []string
}

// begin begins a slow request on a connection that the generation has accepted, and one more every 300 ms: where
// starting its successor takes long, one that takes 1.5 s is under way when it is asked to stop all the same.
func begin(address, path string, from int, tooLate time.Duration) *slowly {
	s := &slowly{address: address, path: cmp.Or(path, "/slow"), from: from, tooLate: tooLate, stop: make(chan struct{})}
	first := s.accepted()
	s.clients.Go(func() { s.request(first) })
	s.clients.Go(func() {
		for {
			select {
			case <-s.stop:
				return
			case <-time.After(300 * time.Millisecond):
				s.clients.Go(func() { s.request(nil) })
			}
		}
	})
	return s
}

// accepted returns a connection on which the generation has given an answer, or nil where one was lost. The one before
// it may still accept for a moment.
func (s *slowly) accepted() *client {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		c, err := dial(s.address, s.tooLate)
		if err == nil {
			err = c.ask()
		}
		s.count(err)
		if err == nil && !c.last && generation(c.body) == s.from {
			return c
		}
		if c != nil {
			c.Close()
		}
		if err != nil {
			break
		}
	}
	return nil
}

// request makes a slow request, on a connection of its own where c is nil.
func (s *slowly) request(c *client) {
	var err error
	if c == nil {
		c, err = dial(s.address, s.tooLate)
	}
	if err == nil {
		defer c.Close()
		err = asks("GET " + s.path + " HTTP/1.1\r\nHost: app\r\n\r\n")(c)
	}
	s.count(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.stopped && generation(c.body) == s.from {
		s.underWay++
	}
}

func (s *slowly) count(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if err != nil {
		s.errors = append(s.errors, err.Error())
	}
}

// enough says that the generation has just been asked to stop.
func (s *slowly) enough() {
	close(s.stop)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// report is the tables that are printed at the end.
type report struct {
	mu   sync.Mutex
	rows []*row
	cut  map[string][]string // by the usual way
}

func (r *report) add(row *row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
}

func (r *report) addCut(way string, lost []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut == nil {
		r.cut = map[string][]string{}
	}
	r.cut[way] = lost
}

func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	position := func(row *row) int {
		return slices.IndexFunc(languages, func(l language) bool { return l.name == row.language })
	}
	slices.SortStableFunc(r.rows, func(a, b *row) int { return position(a) - position(b) })
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "language\tstops by\tswaps\trequests\tslow, under way\tlost\tof clients that keep their connection\tone connection each\tslow")
	for _, row := range r.rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", row.language, row.way, row.swaps, row.requests, row.underWay, row.sum(),
			row.lost[keeping], row.lost[once], row.lost[waiting])
	}
	fmt.Fprint(w, "\nWhat the usual ways lose of a connection that is\t")
	for _, l := range languages {
		if _, ok := r.cut[l.usual.name]; ok {
			fmt.Fprint(w, l.usual.name, "\t")
		}
	}
	for _, k := range kinds {
		fmt.Fprint(w, "\n", k.name, "\t")
		for _, l := range languages {
			lost, ok := r.cut[l.usual.name]
			switch {
			case !ok:
			case slices.Contains(lost, k.name):
				fmt.Fprint(w, "lost\t")
			default:
				fmt.Fprint(w, "answered\t")
			}
		}
	}
	fmt.Fprintln(w)
	w.Flush()
	return table.String()
}
