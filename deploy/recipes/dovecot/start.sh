#!/bin/sh
# Two masters cannot share a base_dir: each generation has its own, and its own copy of the configuration, since
# Dovecot reads that again while it runs. exec keeps the pid that LISTEN_PID names.
dir=/run/dovecot-$CRANK_GENERATION
mkdir -p "$dir"
{ echo "base_dir = $dir"; cat /srv/dovecot/dovecot.conf; } >"$dir.conf"
exec dovecot -F -c "$dir.conf"
