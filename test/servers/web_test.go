package servers

// More servers that speak HTTP, tested with -all.
func init() {
	servers = append(servers,
		server{name: "uvicorn", readyBy: "READY=1 by the app", drainedBy: "USR1, drain.py"},
		server{name: "hypercorn", readyBy: "READY=1 by the app", drainedBy: "USR1, drain.py"},
		server{name: "daphne", readyBy: "READY=1 by the app", drainedBy: "USR1, drain.py"},
		server{name: "uwsgi", readyBy: "READY=1", drainedBy: "TERM"},
		server{name: "lighttpd", readyBy: "-ready none, settle", drainedBy: "INT"},
		server{name: "h2o", readyBy: "-ready 1s", drainedBy: "TERM", uploads: true},
		server{name: "unicorn", readyBy: "READY=1", drainedBy: "QUIT"},
	)
}
