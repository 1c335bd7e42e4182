#!/usr/bin/env python3
"""Counts how often each word was sent, each message exactly once, whatever is killed when.

    tine serve --protocol lines --exec 'python3 examples/exec/count.py words.db' \\
        --exec-format json --on-crash redeliver=255 --dispatch least-busy

A message in which this program or its worker dies is handed to another worker. What it has done by then is in the
database, together with its answer, under a key that is the same in each attempt: the run of the server, the
connection and the number of the message. The next attempt finds the answer and does nothing else.

With --die it kills itself in each first attempt at the worst moment: all is done, and nothing is answered.
"""

import json
import os
import signal
import sqlite3
import sys

database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
# Enough for processes that are killed. Without this line it is also enough for a machine that loses its power.
database.execute("PRAGMA synchronous = OFF")
database.execute("BEGIN IMMEDIATE")
database.execute("CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY, count INTEGER)")
database.execute("CREATE TABLE IF NOT EXISTS answers (run, conn, number, answer, PRIMARY KEY (run, conn))")
database.execute("COMMIT")


def count(word):
    row = database.execute(
        "INSERT INTO words VALUES (?, 1) ON CONFLICT (word) DO UPDATE SET count = count + 1 RETURNING count",
        (word,),
    ).fetchone()
    return f"{word} {row[0]}\n"


def answer(event):
    """Returns the answer, which is made once."""
    run, conn, number = os.environ["TINE_RUN"], event["conn"], event["number"]
    database.execute("BEGIN IMMEDIATE")
    known = database.execute(
        "SELECT answer FROM answers WHERE run = ? AND conn = ? AND number = ?", (run, conn, number)
    ).fetchone()
    text = known[0] if known else count(event.get("data", "?").strip())
    # The last answer of each connection is enough: the messages of a connection come one after another.
    database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (run, conn, number, text))
    database.execute("COMMIT")
    return text


for line in sys.stdin:
    event = json.loads(line)
    text = answer(event)
    if "--die" in sys.argv and event["attempt"] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"send": text, "done": True}), flush=True)
