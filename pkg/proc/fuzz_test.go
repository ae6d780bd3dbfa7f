package proc

import "testing"

// FuzzStat: a process chooses its own name, and with it cannot pass for another one's child, nor for one that has ended.
func FuzzStat(f *testing.F) {
	const rest = "S 1 2 3 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 760532 3133440 412 1 1 1 1 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 1 1 1 1 1 1 1 0"
	for _, name := range []string{"app", "", "a b", ") Z 7 7 7 ", "(", "))", "a\nb", ") S 9 9 9 0", "\xff"} {
		f.Add([]byte(name), []byte(rest))
	}
	f.Fuzz(func(t *testing.T, name, line []byte) {
		_, _ = parseStat(7, line) // whatever /proc has, it is taken apart without harm
		e, ok := parseStat(7, []byte("7 ("+string(name)+") "+rest+"\n"))
		if want := (Entry{PID: 7, Parent: 1, Group: 2, Session: 3, Start: 760532}); !ok || e != want {
			t.Errorf("%q: %+v %v", name, e, ok)
		}
	})
}
