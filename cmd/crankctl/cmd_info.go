package main

import (
	"flag"
	"fmt"
	"time"

	"github.com/crankctl/crank/pkg/control"
)

var cmdInfo = &command{
	name:     "info",
	summary:  "show crank's build, pid, sockets and settings",
	examples: []string{"crankctl info", "crankctl info -o json"},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			info, err := s.client.Info(s.ctx)
			if err != nil {
				return err
			}
			if done, err := s.json(info); done {
				return err
			}
			return table(s.stdout, infoRows(info))
		}
	},
}

// confText reads "/run/crank/web.conf", or "- (why)".
func confText(info control.Info) string {
	text := orDash(info.Conf)
	if info.ConfError != "" {
		text += " (" + info.ConfError + ")"
	}
	return text
}

func infoRows(info control.Info) [][]string {
	rows := [][]string{
		{"name", info.Name},
		{"pid", fmt.Sprint(info.PID)},
		{"version", info.Version},
		{"go", info.Go},
		{"up", compact(time.Since(info.Started).Seconds())},
		{"prefix", orDash(info.Prefix)},
		{"conf", confText(info)},
		{"ctl", orDash(info.Ctl)},
	}
	if info.HTTP != "" {
		rows = append(rows, []string{"http", info.HTTP})
	}
	if info.Current != nil {
		rows = append(rows, []string{"current", nameOf(*info.Current)}, []string{"command", commandLine(info.Current.Command)})
	}
	for _, socket := range info.Sockets {
		text := fmt.Sprintf("fd %d %s", socket.FD, socket.Bound)
		if socket.Name != "" {
			text += " (" + socket.Name + ")"
		}
		rows = append(rows, []string{"socket", text})
	}
	for _, flag := range sortedKeys(info.Settings) {
		rows = append(rows, []string{"-" + flag, info.Settings[flag]})
	}
	return rows
}
