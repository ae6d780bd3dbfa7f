#!/bin/sh
# A shell script says READY by systemd-notify(1), then becomes the server, whose connections wait in
# the socket meanwhile. Where crank did not close the descriptor that comes with BARRIER=1,
# systemd-notify would wait for five seconds, fail, and by that end the script.
set -e
systemd-notify --status="starting" EXTEND_TIMEOUT_USEC=5000000
systemd-notify --ready --pid=$$ --status="serving shell"
exec "$1" -quiet
