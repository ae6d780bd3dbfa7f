#!/bin/sh
bin=/usr/lib/postgresql/15/bin
data=/srv/postgresql/data
[ -d $data ] || $bin/initdb -D $data >/dev/null || exit
exec $bin/postgres -D $data -h 0.0.0.0 -p 5432 -k ''
