#!/bin/sh
# usage: update.sh BINARY [ARGUMENT ...]
#
# Puts BINARY into the volume that crank's container has at the same path, and swaps to it. Each version has a name of its own
# there: the file of the version that serves is never replaced, so that crankctl rollback and a restart of crank's container find it.
#
# A version is tried once: not again when this container starts anew, whether it failed, serves, or was rolled back since. Only
# where nothing runs at all is it tried again.
set -eu
trap 'exit 143' TERM # as process 1, a shell would ignore it

crankctl=${CRANKCTL:-/crank-bin/crankctl}
shared=${SHARED:-/app-bin}
binary=$1
shift
version=$(sha256sum <"$binary" | cut -c1-16)
new=$shared/app-$version

generations() { "$crankctl" ps -o json "$@"; }

# crank's container starts after this one. Each reason to wait is said once.
said=
until reason=$(generations 2>&1 >/dev/null); do
  [ "$reason" = "$said" ] || echo "update.sh: waiting: $reason" >&2
  said=$reason
  sleep 1
done

tried=$(cat "$shared/.tried" 2>/dev/null || true)
if [ "$tried" != "$version" ] || ! generations -starting -ready | grep -q pid; then
  cp "$binary" "$shared/.new"
  chmod 755 "$shared/.new"
  mv "$shared/.new" "$new" # complete or not at all
  echo "$version" >"$shared/.tried"
  "$crankctl" run -wait -- "$new" "$@" || echo "update.sh: $new does not serve" >&2

  # The newest five stay, and whatever still runs.
  running=$(generations)
  ls -t "$shared"/app-* | tail -n +6 | while read -r old; do
    case $running in *"\"$old\""*) ;; *) rm -f "$old" ;; esac
  done
fi

# From here on this container's log says what crank does. It ends with crank, or with the pod.
exec "$crankctl" events -f
