#!/usr/bin/env python3
"""Welcomes each client, numbers its lines, and says when it is gone, in the format `json`.

    tine serve --protocol lines --exec 'python3 examples/exec/talk.py' \\
        --exec-format json --exec-events start,connect,close
"""

import json
import sys


def answer(event):
    match event["event"]:
        case "connect":
            return {"send": f"welcome, {event['peer']}\n"}
        case "receive" if "data" not in event:
            # Not UTF-8: the bytes are in event["base64"].
            return {"send": "this is no text\n", "close": True}
        case "receive" if event["data"].strip() == "quit":
            return {"send": "bye\n", "close": True}
        case "receive":
            return {"send": f"{event['number']}: {event['data'].strip()}\n"}
        case "close":
            # Standard error goes to the log.
            print(f"{event['conn']} is gone: {event['reason']}", file=sys.stderr, flush=True)
    return {}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line)) | {"done": True}), flush=True)
