package servers

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Servers in Java, Erlang and Node, and those that speak something else than HTTP, tested with -all.
func init() {
	servers = append(servers,
		server{name: "tomcat", readyBy: "READY=1 by the app", drainedBy: "TERM", paths: []string{"/srv/tomcat", "/srv/app"},
			loses: 1, since: "it closes the connection that it accepts while it stops"},
		server{name: "jetty", readyBy: "READY=1 by the app", drainedBy: "TERM", paths: []string{"/srv/jetty"},
			loses: 10, since: "it answers 503 to what it has accepted but not read when it is stopped"},
		server{name: "java", readyBy: "READY=1 by the app", drainedBy: "TERM"},
		server{name: "erlang", readyBy: "READY=1 by the app", drainedBy: "TERM"},
		server{name: "npm start", recipe: "node-npm", readyBy: "READY=1 by crankctl", drainedBy: "TERM"},
		server{name: "node-cluster", readyBy: "READY=1 by the app", drainedBy: "TERM"},
		server{name: "waitress", readyBy: "READY=1 by the app", drainedBy: "nothing",
			loses: 10, since: "TERM ends it with what it has accepted"},
		server{name: "node-exporter", readyBy: "-ready none, settle", drainedBy: "nothing", ask: scraper(),
			loses: 2, since: "TERM ends it at once", losesSlow: "TERM ends it at once"},
		server{name: "sshd", readyBy: "READY=1", drainedBy: "TERM", ask: askSSH,
			losesSlow: "by the end of crank itself, no swap"},
		server{name: "dovecot", readyBy: "READY=1", drainedBy: "TERM", ask: askIMAP, paths: []string{"/run"},
			change:    []string{"uid=vmail gid=vmail home=/srv/mail/%u", "uid=nobody gid=nogroup home=/nonexistent"},
			losesSlow: "crank ends what is left of a generation whose main process has gone"},
		server{name: "unbound", readyBy: "READY=1", drainedBy: "nothing", ask: resolver(), loses: 2, since: "TERM ends it at once",
			losesSlow: "TERM ends it at once", surroundings: "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/system"},
	)
}

// slowTime is how long the clients that are slow themselves wait.
const slowTime = 2 * time.Second

// askSSH reads the server's greeting, which ends in "version N". A slow client answers it late, and
// then wants to see that the server still begins the exchange of keys.
func askSSH(i *instance, path string) (string, error) {
	return converse(i, func(conn net.Conn, in *bufio.Reader) (string, error) {
		greeting, err := in.ReadString('\n')
		if err != nil || path != "/slow" {
			return greeting, err
		}
		time.Sleep(slowTime)
		if _, err := fmt.Fprint(conn, "SSH-2.0-slow\r\n"); err != nil {
			return "", err
		}
		_, err = in.Peek(6) // length, padding and SSH_MSG_KEXINIT, RFC 4253
		return greeting, err
	})
}

// askIMAP reads the server's greeting, which is "version N". A slow client logs in and asks something late.
func askIMAP(i *instance, path string) (string, error) {
	return converse(i, func(conn net.Conn, in *bufio.Reader) (string, error) {
		greeting, err := in.ReadString('\n')
		if err != nil || path != "/slow" {
			return greeting, err
		}
		for tag, command := range []string{"LOGIN someone secret", "NOOP"} {
			if _, err := fmt.Fprintf(conn, "%d %s\r\n", tag, command); err != nil {
				return "", err
			}
			answer, err := in.ReadString('\n')
			for err == nil && strings.HasPrefix(answer, "*") {
				answer, err = in.ReadString('\n')
			}
			if err != nil || !strings.Contains(answer, " OK ") {
				return "", fmt.Errorf("%s is answered %q, %w", command, answer, err)
			}
			time.Sleep(slowTime * time.Duration(1-tag))
		}
		return greeting, nil
	})
}

// resolver returns a function that asks a DNS server for the record "app. TXT", by UDP and TCP in turn. A slow client
// sends the second half of its question late.
func resolver() func(*instance, string) (string, error) {
	const query = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + "\x03app\x00" + "\x00\x10\x00\x01" // RFC 1035, 4.1
	var turn atomic.Int64
	return func(i *instance, path string) (string, error) {
		if path != "/slow" && turn.Add(1)%2 == 0 {
			conn, err := net.DialTimeout("udp", i.address[0], tooLate)
			if err != nil {
				return "", err
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(tooLate))
			if _, err := io.WriteString(conn, query); err != nil {
				return "", err
			}
			answer := make([]byte, 512)
			n, err := conn.Read(answer)
			return text(answer[:n]), err
		}
		return converse(i, func(conn net.Conn, in *bufio.Reader) (string, error) {
			half := len(query) / 2
			if _, err := io.WriteString(conn, "\x00"+string(rune(len(query)))+query[:half]); err != nil { // 4.2.2
				return "", err
			}
			if path == "/slow" {
				time.Sleep(slowTime)
			}
			if _, err := io.WriteString(conn, query[half:]); err != nil {
				return "", err
			}
			answer := make([]byte, 2+512)
			if _, err := io.ReadFull(in, answer[:2]); err != nil {
				return "", err
			}
			answer = answer[2 : 2+int(answer[0])<<8+int(answer[1])]
			_, err := io.ReadFull(in, answer)
			return text(answer), err
		})
	}
}

// text is the record at the end of a DNS answer.
func text(answer []byte) string {
	at := max(0, bytes.Index(answer, []byte("version ")))
	return string(answer[at:])
}

// converse runs a conversation on a connection of its own and returns the "version N" of what it returned.
func converse(i *instance, talk func(net.Conn, *bufio.Reader) (string, error)) (string, error) {
	conn, err := net.DialTimeout("tcp", i.address[0], tooLate)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(tooLate))
	answer, err := talk(conn, bufio.NewReader(conn))
	if at := strings.Index(answer, "version "); at >= 0 {
		answer = strings.TrimSpace(answer[at:])
	}
	return answer, err
}

// scraper returns a function that asks an exporter for its metrics. Nothing in them can be configured, so that the
// version is the number of start times that were seen until then, in this order.
func scraper() func(*instance, string) (string, error) {
	var mu sync.Mutex
	versions := map[string]int{}
	started := regexp.MustCompile(`(?m)^process_start_time_seconds (.*)$`)
	return func(i *instance, path string) (string, error) {
		return converse(i, func(conn net.Conn, in *bufio.Reader) (string, error) {
			if _, err := fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\n"); err != nil {
				return "", err
			}
			if path == "/slow" { // it is the client that is
				time.Sleep(slowTime)
			}
			if _, err := fmt.Fprint(conn, "Host: app\r\nConnection: close\r\n\r\n"); err != nil {
				return "", err
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				return "", err
			}
			metrics, err := content(resp)
			if err != nil {
				return "", err
			}
			m := started.FindStringSubmatch(metrics)
			if m == nil {
				return "", fmt.Errorf("there is no start time in the metrics")
			}
			mu.Lock()
			defer mu.Unlock()
			if versions[m[1]] == 0 {
				versions[m[1]] = len(versions) + 1
			}
			return fmt.Sprint("version ", versions[m[1]]), nil
		})
	}
}
