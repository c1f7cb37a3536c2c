"""Servers and clients that say whom they see.

`serve PORT...` answers on TCP and UDP: what it has received, behind a line of JSON with both addresses and its SHA-256.
`ask CALLS` makes the calls of a JSON list [protocol, address, port, size] and prints a JSON list of what was answered.
More bytes than a datagram has go in several, one after the other, each of which is sent again if no answer comes.
`odd ADDRESS PORT COUNT` makes as many calls at once in each of four ways, and prints how many went as they should: with
the sending side closed before the answer; reset in the middle of the answer; read slowly; and reset at once.
`serve-urgent PORT` hears bytes with an urgent one among them, and says the same. `urgent ADDRESS PORT` lets it, and prints
a JSON list of what was heard: bytes before the urgent one, whether it came, bytes in all, and whether all were right.
`deserted PORT COUNT` takes so many connections, waits for a line, sends on all, and prints a JSON object: how many ended
in which error. `desert ADDRESS PORT COUNT` connects, prints a line, and waits.
"""
import contextlib
import functools
import hashlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time


def plain(address):
    return [address[0].removeprefix("::ffff:"), address[1]]


def exactly(s, size):
    data = bytearray()
    while len(data) < size:
        more = s.recv(min(1 << 20, size - len(data)))
        if not more:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += more
    return bytes(data)


def line(s):
    text = b""
    while not text.endswith(b"\n"):
        text += exactly(s, 1)
    return json.loads(text)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def answer(s, peer):
    with s, contextlib.suppress(OSError, EOFError):  # clients may vanish
        size = line(s)
        data = exactly(s, size)
        facts = {"peer": plain(peer), "local": plain(s.getsockname()), "sha": digest(data)}
        s.sendall(json.dumps(facts).encode() + b"\n" + data)
        s.shutdown(socket.SHUT_WR)
        s.recv(1)


def serve(port):
    six = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    six.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    six.bind(("::", port))
    six.listen(1000)
    while True:
        threading.Thread(target=answer, args=six.accept(), daemon=True).start()


def serve_datagrams(port):
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    six.bind(("::", port))
    while True:
        data, control, _, peer = six.recvmsg(65535, 100)
        # The answer has the address that was asked as its source, but does not choose the interface.
        [to] = [struct.unpack("16sI", it) for _, kind, it in control if kind == socket.IPV6_PKTINFO]
        source = struct.pack("16sI", to[0], 0)
        local = plain([socket.inet_ntop(socket.AF_INET6, to[0]), port])
        facts = {"peer": plain(peer), "local": local, "sha": digest(data)}
        head = json.dumps(facts).encode() + b"\n"
        control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source)]
        six.sendmsg([head, data[:1000]], control, 0, peer)


DATAGRAM = 60_000


@functools.cache
def noise(size):
    return os.urandom(size)


def ask_datagrams(s, data):
    facts = None
    for at in range(0, len(data), DATAGRAM):
        part = data[at : at + DATAGRAM]
        wanted = digest(part)
        for tries in range(5):
            s.send(part)
            with contextlib.suppress(TimeoutError):
                text, _, rest = s.recv(65535).partition(b"\n")
                answer = json.loads(text)
                if answer["sha"] == wanted and rest == part[:1000]:
                    break
        else:
            return {**(facts or {}), "whole": False}
        if facts and (facts["peer"], facts["local"]) != (answer["peer"], answer["local"]):
            return {**facts, "whole": False, "error": f"then {answer}"}
        facts = answer
    return {"whole": True, **facts}


def ask(protocol, address, port, size):
    data = noise(size)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as s:
        s.settimeout(120 if protocol == "tcp" else 20)
        s.connect((address, port))
        own = plain(s.getsockname())
        if protocol == "udp":
            return {"own": own, **ask_datagrams(s, data)}
        s.sendall(json.dumps(size).encode() + b"\n" + data)
        facts = line(s)
        same = exactly(s, size) == data
        return {"own": own, "whole": same and facts["sha"] == digest(data), **facts}


def attempt(call):
    try:
        return ask(*call)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def odd(kind, address, port):
    size = 300_000
    data = os.urandom(size)
    s = socket.create_connection((address, port), 120)
    with s:
        if kind == "at once":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return True
        s.sendall(json.dumps(size).encode() + b"\n" + data)
        if kind == "closed":
            s.shutdown(socket.SHUT_WR)
        line(s)
        if kind == "reset":
            exactly(s, 1000)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return True
        if kind == "slow":
            got = b""
            while len(got) < size:
                got += exactly(s, min(30_000, size - len(got)))
                time.sleep(0.05)
            return got == data
        return exactly(s, size) == data and s.recv(1) == b""


def count(results, *call):
    try:
        results.append(odd(*call))
    except Exception as error:
        results.append(repr(error))


URGENT = [(3, 3), (0, 3), (3, 0), (0, 0), (300_000, 300_000)]


def say(s, before, after):
    s.sendall(bytes(before))
    s.send(b"!", socket.MSG_OOB)
    s.sendall(b"\x01" * after)
    s.shutdown(socket.SHUT_WR)


def hear(s):
    data, urgent, ends = b"", b"", [0]
    while True:
        [readable, _, special] = select.select([s], [], [s] if not urgent else [], 60)
        if special:
            urgent = s.recv(1, socket.MSG_OOB)
        elif readable:
            more = s.recv(1 << 20)  # stops before the urgent byte
            if not more:
                break
            data += more
            ends.append(len(data))
        else:
            raise TimeoutError(f"after {len(data)} bytes")
    before = data.count(0)
    whole = data == bytes(before) + b"\x01" * (len(data) - before)
    return [before, urgent == b"!" and before in ends, len(data), whole]


def serve_urgent(port):
    with socket.create_server(("", port)) as server:
        for before, after in URGENT * 8:
            with server.accept()[0] as s:
                s.sendall(json.dumps(hear(s)).encode() + b"\n")
                say(s, before, after)
                s.settimeout(60)
                s.recv(1)


def urgent(address, port):
    heard = []
    for before, after in URGENT * 8:
        with socket.create_connection((address, port), 60) as s:
            say(s, before, after)
            heard += [line(s), hear(s)]
    return heard


def deserted(port, count):
    connections = []
    with socket.create_server(("", port), backlog=count) as server:
        print("ready", flush=True)
        while len(connections) < count:
            connections.append(server.accept()[0])
    print("connected", flush=True)
    sys.stdin.readline()
    for s in connections:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500)
        s.send(bytes(1000))
    errors = {}
    for s in connections:
        s.settimeout(120)
        try:
            s.recv(1)
            name = "end"
        except OSError as error:
            name = type(error).__name__ if error.errno else "nothing"
        errors[name] = errors.get(name, 0) + 1
    return errors


mode, *rest = sys.argv[1:]
if mode == "serve":
    for port in map(int, rest):
        threading.Thread(target=serve, args=(port,), daemon=True).start()
        threading.Thread(target=serve_datagrams, args=(port,), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()
elif mode == "serve-urgent":
    serve_urgent(int(rest[0]))
elif mode == "urgent":
    print(json.dumps(urgent(rest[0], int(rest[1]))))
elif mode == "deserted":
    print(json.dumps(deserted(int(rest[0]), int(rest[1]))))
elif mode == "desert":
    calls = [socket.create_connection((rest[0], int(rest[1])), 60) for _ in range(int(rest[2]))]
    print(len(calls), flush=True)
    sys.stdin.read()
elif mode == "odd":
    outcome = {}
    threads = []
    for kind in ("closed", "reset", "slow", "at once"):
        outcome[kind] = []
        for _ in range(int(rest[2])):
            threads.append(threading.Thread(target=count, args=(outcome[kind], kind, rest[0], int(rest[1]))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({kind: [len(found), sorted({str(one) for one in found})] for kind, found in outcome.items()}))
else:
    print(json.dumps([attempt(call) for call in json.loads(rest[0])]))
