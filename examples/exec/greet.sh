#!/bin/sh
# Greets: each message is a line with a name, and the answer is a line.
#
#     tine serve --protocol lines --exec 'sh examples/exec/greet.sh'

# printf is a part of the shell, which does not hold its output back. `read` removes spaces around the name.
while read -r name; do
    printf 'hello, %s\n' "$name"
done
