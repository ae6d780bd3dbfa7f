package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// server is something that serves HTTP and can be given a new version of what it serves, in the way that its users do that.
type server struct {
	name  string
	needs []string // the peers that it takes
	start func(context.Context, *bench) (*served, error)
}

// served is a server that runs.
type served struct {
	address string
	swap    func() error // begins a swap, and may wait for its end
	stop    func()
}

func (s server) installed() bool {
	for _, peer := range s.needs {
		if _, ok := find(peer); !ok {
			return false
		}
	}
	return true
}

// servers are crank, the peer that it is to be as good as, and the others. Each answers 200 and a few bytes.
var servers = []server{
	{"crank", nil, serveCrank},
	{"`nginx -s reload`", []string{"nginx"}, serveNginx},
	{"HAProxy, USR2", []string{"HAProxy"}, serveHAProxy},
	{"gunicorn, HUP", []string{"gunicorn"}, serveGunicorn},
	{"Server::Starter with Starlet, HUP", []string{"Server::Starter", "Starlet"}, serveStarter},
	{"systemd-socket-activate, started again", []string{"systemd-socket-activate"}, serveSocketActivate},
	{"`supervisorctl restart`", []string{"supervisor"}, serveSupervisor},
}

// serveCrank has the app of the tests behind it, and waits until the new one has settled.
func serveCrank(ctx context.Context, b *bench) (*served, error) {
	i, err := b.startCrank(ctx, options{}, []string{"-bind", "127.0.0.1:0"}, b.program("app"), "-body", "ok")
	if err != nil {
		return nil, err
	}
	address, err := i.address(ctx)
	return &served{
		address: address,
		swap:    func() error { return b.command(b.program("crankctl"), "-prefix", i.prefix, "reload") },
		stop:    func() { i.stop(syscall.SIGTERM) },
	}, err
}

// place is where a server has its files and listens. DIR and ADDRESS stand for these in what it is given.
type place struct{ dir, address string }

func (b *bench) newPlace() (place, error) {
	dir, err := os.MkdirTemp(b.dir, "server-")
	if err != nil {
		return place{}, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // some of them change their user
		return place{}, err
	}
	address, err := freeAddress()
	return place{dir, address}, err
}

func (p place) fill(text string) string {
	return strings.NewReplacer("DIR", p.dir, "ADDRESS", p.address).Replace(text)
}

// file writes a file and returns its path.
func (p place) file(name, text string) (string, error) {
	path := filepath.Join(p.dir, name)
	return path, os.WriteFile(path, []byte(p.fill(text)), 0o644)
}

// serve starts a server with one file, which is written first, and waits until it accepts connections.
func (b *bench) serve(ctx context.Context, name, content string, argv ...string) (place, *process, error) {
	p, err := b.newPlace()
	if err != nil {
		return p, nil, err
	}
	if _, err := p.file(name, content); err != nil {
		return p, nil, err
	}
	for n := range argv {
		argv[n] = p.fill(argv[n])
	}
	proc, err := b.start(options{dir: p.dir}, argv...)
	if err != nil {
		return p, nil, err
	}
	if err := proc.serves(ctx, p.address); err != nil {
		proc.stop(syscall.SIGKILL)
		return p, nil, err
	}
	return p, proc, nil
}

const nginxConf = `
daemon off;
worker_processes 2;
pid DIR/pid;
error_log stderr;
events {
	worker_connections 4096;
}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	server {
		listen ADDRESS;
		return 200 "ok";
	}
}
`

func serveNginx(ctx context.Context, b *bench) (*served, error) {
	path, _ := find("nginx")
	p, proc, err := b.serve(ctx, "nginx.conf", nginxConf, path, "-e", "stderr", "-c", "DIR/nginx.conf")
	if err != nil {
		return nil, err
	}
	return &served{
		address: p.address,
		swap: func() error {
			return b.command(path, "-e", "stderr", "-c", filepath.Join(p.dir, "nginx.conf"), "-s", "reload")
		},
		stop: func() { proc.stop(syscall.SIGQUIT) },
	}, nil
}

const haproxyCfg = `
global
	stats socket DIR/socket level admin expose-fd listeners
defaults
	mode http
	timeout client 30s
	timeout connect 5s
	timeout server 30s
frontend web
	bind ADDRESS
	http-request return status 200 content-type text/plain string ok
`

func serveHAProxy(ctx context.Context, b *bench) (*served, error) {
	path, _ := find("HAProxy")
	p, proc, err := b.serve(ctx, "haproxy.cfg", haproxyCfg, path, "-W", "-db", "-f", "DIR/haproxy.cfg")
	if err != nil {
		return nil, err
	}
	return &served{p.address, bySignal(proc, syscall.SIGUSR2), func() { proc.stop(syscall.SIGTERM) }}, nil
}

const wsgiApp = `
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
`

func serveGunicorn(ctx context.Context, b *bench) (*served, error) {
	path, _ := find("gunicorn")
	p, proc, err := b.serve(ctx, "app.py", wsgiApp, path, "-b", "ADDRESS", "-w", "2", "--chdir", "DIR", "app:app")
	if err != nil {
		return nil, err
	}
	return &served{p.address, bySignal(proc, syscall.SIGHUP), func() { proc.stop(syscall.SIGTERM) }}, nil
}

const psgiApp = `sub { [200, ["Content-Type" => "text/plain", "Content-Length" => 2], ["ok"]] };` + "\n"

func serveStarter(ctx context.Context, b *bench) (*served, error) {
	path, _ := find("Server::Starter")
	plackup, _ := find("Starlet")
	p, proc, err := b.serve(ctx, "app.psgi", psgiApp, path, "--port", "ADDRESS", "--",
		plackup, "-E", "deployment", "-s", "Starlet", "--max-workers=2", "DIR/app.psgi")
	if err != nil {
		return nil, err
	}
	return &served{p.address, bySignal(proc, syscall.SIGHUP), func() { proc.stop(syscall.SIGTERM) }}, nil
}

// serveSocketActivate has no swap: the app, which it becomes at the first connection, is told to drain, and all is started
// again. The socket is gone meanwhile.
func serveSocketActivate(ctx context.Context, b *bench) (*served, error) {
	path, _ := find("systemd-socket-activate")
	p, err := b.newPlace()
	if err != nil {
		return nil, err
	}
	start := func() (*process, error) {
		proc, err := b.start(options{dir: p.dir}, path, "-l", p.address, b.program("app"), "-body", "ok")
		if err != nil {
			return nil, err
		}
		return proc, proc.serves(ctx, p.address)
	}
	proc, err := start()
	if err != nil {
		return nil, err
	}
	return &served{
		address: p.address,
		swap: func() (err error) {
			proc.stop(syscall.SIGTERM)
			proc, err = start()
			return err
		},
		stop: func() { proc.stop(syscall.SIGTERM) },
	}, nil
}

const supervisordConf = `
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile=DIR/pid
[unix_http_server]
file=DIR/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://DIR/socket
[program:app]
command=APP -listen ADDRESS -body ok
`

// serveSupervisor has no swap either: the app binds its own socket, is stopped, and is started again.
func serveSupervisor(ctx context.Context, b *bench) (*served, error) {
	path, _ := find("supervisor")
	ctl, _ := lookup("supervisorctl")
	conf := strings.Replace(supervisordConf, "APP", b.program("app"), 1)
	p, proc, err := b.serve(ctx, "supervisord.conf", conf, path, "-c", "DIR/supervisord.conf")
	if err != nil {
		return nil, err
	}
	return &served{
		address: p.address,
		swap:    func() error { return b.command(ctl, "-c", filepath.Join(p.dir, "supervisord.conf"), "restart", "app") },
		stop:    func() { proc.stop(syscall.SIGTERM) },
	}, nil
}
