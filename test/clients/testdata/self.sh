#!/bin/sh
# As app.sh, but systemd-notify names itself as the main process (--pid=self since systemd 254), and ends.
set -e
sh -c 'exec systemd-notify --ready --pid=$$ --status="serving self"'
exec "$1" -quiet
