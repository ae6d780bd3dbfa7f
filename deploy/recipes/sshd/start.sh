#!/bin/sh
# The key is made once; keep it in a volume. exec keeps the pid that LISTEN_PID names. Without CRANK_GENERATION crank
# does not count a connection's process as one of the generation, and does not end it when the listening one has gone.
[ -f /srv/ssh/host_key ] || ssh-keygen -q -t ed25519 -N '' -f /srv/ssh/host_key
mkdir -p /run/sshd
exec env -u CRANK_GENERATION /usr/sbin/sshd -D -e -f /srv/ssh/sshd_config
