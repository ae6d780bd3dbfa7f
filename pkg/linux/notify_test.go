package linux

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParseControl: whatever comes beside a message, cut off anywhere, is taken apart without harm.
func FuzzParseControl(f *testing.F) {
	rights, credentials := unix.UnixRights(7, 8, 9), unix.UnixCredentials(&unix.Ucred{Pid: 42, Uid: 1000, Gid: 1001})
	for _, oob := range [][]byte{nil, rights, credentials, append(credentials, rights...), append(rights, credentials...), rights[:len(rights)-3], credentials[:20], make([]byte, 64)} {
		f.Add(oob)
	}
	f.Fuzz(func(t *testing.T, oob []byte) {
		if _, fds := parseControl(oob); len(fds) > len(oob)/4 {
			t.Errorf("%x: %d descriptors", oob, len(fds))
		}
		// What is complete is found, whatever follows it.
		who, fds := parseControl(append(append([]byte(nil), append(credentials[:len(credentials):len(credentials)], rights...)...), oob...))
		if len(fds) < 3 || fds[0] != 7 || fds[2] != 9 || len(oob) < unix.SizeofCmsghdr && who != (Credentials{42, 1000, 1001}) {
			t.Errorf("%x: %v %v", oob, who, fds)
		}
	})
}
