#!/usr/bin/env bash
# socat(1) as an echo server: a process for each connection. Its address is only in its log.
exec socat -d -d -b 65536 TCP-LISTEN:0,bind=127.0.0.1,fork,backlog=4096,nodelay PIPE \
	2> >(sed -un 's/.*listening on AF=2 /socat: listening on /p')
