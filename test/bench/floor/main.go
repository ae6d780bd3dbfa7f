// Command floor starts a program, waits for it and exits with its code, and is linked with what crank answers probes and scrapes by:
// what any init in Go costs at least that can do so.
package main

import (
	_ "encoding/json"
	_ "net/http"
	"os"
	"syscall"

	_ "github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	pid, err := syscall.ForkExec(os.Args[1], os.Args[1:], &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		panic(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		panic(err)
	}
	os.Exit(status.ExitStatus())
}
