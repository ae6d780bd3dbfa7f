#!/usr/bin/env bash
# leaves-nothing.sh [-interrupt PROGRAM] COMMAND...
#
# Runs a command and fails if it leaves a file in /tmp, /run or /dev/shm, or a process. Otherwise it exits as the command does. With
# -interrupt it sends SIGINT, as Ctrl-C does, as soon as PROGRAM runs below the command. The command must then fail.
#
# The machine may do other things meanwhile. A process counts if it has the mark of this script in its environment, or the path of the
# checkout or "crank" in its command line. A file counts if its name has the form that tests use, or contains "crank". Anything else that
# is new is only listed.
set -euo pipefail
set -m # gives the command its own process group, and default signals

interrupt=
if [ "$1" = -interrupt ]; then
	interrupt=$2
	shift 2
fi

export LEAVES_NOTHING=$$

files() { find /tmp /run /dev/shm -mindepth 1 -maxdepth 1 2>/dev/null | sort; }

# The start of awk programs that read the pid, parent and name of each process.
below='function below(pid, root) { for (; pid > 1; pid = parent[pid]) if (pid == root) return 1; return 0 }
	{ parent[$1] = $2; name[$1] = $3 }'

# Excludes kernel threads, and the processes below this script: once the command has ended, those are only its own helpers.
processes() { ps -e -o pid=,ppid=,comm= | awk -v self=$$ "$below"' END { for (pid in name) if (parent[pid] != 2 && !below(pid, self)) print pid, name[pid] }' | sort; }

# runs PID PROGRAM: succeeds if the program runs below the process.
runs() { ps -e -o pid=,ppid=,comm= | awk -v root="$1" -v program="$2" "$below"' END { for (pid in name) if (name[pid] == program && below(pid, root)) exit 0; exit 1 }'; }

new() { comm -13 <(echo "$1") <("$2"); }

# mine_files keeps the files that tests may have made: by os.MkdirTemp, by Go, by crank.
mine_files() { grep -E '^/(tmp|run|dev/shm)/([^/]*[0-9]{6,}|[^/]*crank[^/]*|Test[^/]*|go-[^/]*)(/|$)' || true; }

mine_processes() {
	while read -r pid name; do
		if head -c 1M "/proc/$pid/environ" 2>/dev/null | grep -zqx "LEAVES_NOTHING=$LEAVES_NOTHING" ||
			tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -e "$PWD" -e crank; then
			echo "$pid $name"
		fi
	done
}

had_files=$(files)
had_processes=$(processes)
"$@" &
command=$!
trap 'kill -INT -- -$command; wait $command; exit 130' INT TERM HUP
if [ -n "$interrupt" ]; then
	until runs $command "$interrupt"; do
		kill -0 $command 2>/dev/null || { echo "the command ended before $interrupt ran"; exit 1; }
		sleep 0.1
	done
	kill -INT -- -$command
fi
code=0
wait $command || code=$?
if [ -n "$interrupt" ]; then
	[ $code != 0 ] || { echo "the command succeeded although it was interrupted"; exit 1; }
	code=0
fi
for _ in $(seq 100); do # killed processes take a moment to end
	left=$(new "$had_files" files | mine_files; new "$had_processes" processes | mine_processes)
	if [ -z "$left" ]; then
		others=$(new "$had_files" files; new "$had_processes" processes)
		[ -z "$others" ] || printf 'new meanwhile, but not from %s (%d):\n%s\n' "$*" "$(wc -l <<<"$others")" "${others:0:2000}"
		exit $code
	fi
	sleep 0.1
done
printf 'left behind by %s:\n%s\n' "$*" "$left"
exit 1
