#!/usr/bin/env python3
"""Greets: each message is a line with a name, and the answer is a line.

    tine serve --protocol lines --exec 'python3 examples/exec/greet.py'
"""

import sys

for line in sys.stdin:
    # Without flush the answer would stay in this process, and the client would wait for ever.
    print(f"hello, {line.strip()}", flush=True)
