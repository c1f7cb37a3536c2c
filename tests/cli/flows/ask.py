"""Clients of the control socket that ask for flows.

PATH COUNT   COUNT clients ask for a list at once, and get it; between them are some that take nothing, or leave. Prints how
             many flows each has got, and then "done".
PATH slow    follows, and reads nothing until stdin ends; then prints how many starts and ends it got, and how many are lost
"""

import json
import socket
import struct
import sys
import threading


def connect(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # A socket that does not block would not wait until the server has room for it.
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        s.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 60, 0))
    s.connect(path)
    return s


def ask(s, call):
    s.send(json.dumps({"call": call}).encode())


def whole(path, got):
    with connect(path) as s:
        ask(s, "flows.list")
        assert json.loads(s.recv(1 << 18)) == {"ok": True}
        flows = 0
        while True:
            packet = s.recv(1 << 18)
            if not packet:
                raise SystemExit("the list is not whole")
            lines = [json.loads(line) for line in packet.split(b"\n") if line]
            flows += sum("flow" in line for line in lines)
            if any("end" in line for line in lines):
                break
        got.append(flows)


def many(path, count):
    got = []
    threads = [threading.Thread(target=whole, args=(path, got)) for _ in range(count)]
    strange = []
    for i, thread in enumerate(threads):
        thread.start()
        if i % 10 == 0:
            s = connect(path)
            ask(s, ["flows.list", "flows.follow", "flows.nothing"][i // 10 % 3])
            if i % 20 == 0:
                s.close()
            else:
                strange.append(s)
    for thread in threads:
        thread.join()
    print(json.dumps(got))
    print(json.dumps("done"), flush=True)


def slow(path):
    s = connect(path)
    ask(s, "flows.follow")
    assert json.loads(s.recv(1 << 18)) == {"ok": True}
    print("following", flush=True)
    sys.stdin.read()
    counts = {"start": 0, "end": 0, "lost": 0}
    last = False
    while not last:
        for line in s.recv(1 << 18).split(b"\n"):
            if not line:
                continue
            event = json.loads(line)
            counts[event["event"]] += event.get("count", 1)
            last = event["event"] == "lost"
    print(json.dumps({"starts": counts["start"], "ends": counts["end"], "lost": counts["lost"]}), flush=True)


path, what = sys.argv[1:]
if what == "slow":
    slow(path)
else:
    many(path, int(what))
