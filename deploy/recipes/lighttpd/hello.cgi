#!/bin/sh
[ "$REQUEST_URI" != /slow ] || sleep 2 # so that you can see it drain
printf 'Content-Type: text/plain\r\n\r\n%s\n' "$VERSION"
