#!/usr/bin/env python3
"""Sends each message back with its bytes in reverse, in the format `frames`, which takes any bytes.

    tine serve --protocol length=4 --exec 'python3 examples/exec/reverse.py'

A message and its answer begin with their length, in 4 bytes. An empty message is the last one.
"""

import sys

questions, answers = sys.stdin.buffer, sys.stdout.buffer


def send(data):
    answers.write(b"send %d\n" % len(data))
    answers.write(data)


for header in questions:
    # receive conn=0:3:17 peer=127.0.0.1:51234 listener=127.0.0.1:9501 number=7 attempt=0 length=9
    event, *fields = header.decode().split()
    fields = dict(field.split("=", 1) for field in fields)
    message = questions.read(int(fields["length"]))
    if event == "receive":
        length, data = message[:4], message[4:]
        send(length)
        send(data[::-1])
        if not data:
            answers.write(b"close\n")
    # Every event has an answer, if only this.
    answers.write(b"done\n")
    answers.flush()
