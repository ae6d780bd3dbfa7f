#!/bin/sh
# exec keeps the pid that LISTEN_PID names.
data=/srv/mysql/data
[ -d $data/mysql ] || mariadb-install-db --no-defaults --datadir=$data --skip-test-db >/dev/null || exit
exec mariadbd --no-defaults --datadir=$data --socket=/srv/mysql/mysql.sock --bind-address=0.0.0.0 --port=3306
