"""Traffic of tests of flows, and what a capture sees of it.

serve FIRST COUNT       TCP and UDP servers on that many ports: what comes is a line "N", and N bytes are the answer
drive ADDRESS FIRST COUNT FLOWS
                        FLOWS exchanges of TCP, UDP and ping each, of sizes that differ, ports in turn
hold ADDRESS PORT FLOWS as many TCP connections, which stay open until stdin ends; prints "open" once they are
stream ADDRESS PORT     bytes without end on one connection; stdin ends it; prints how many were sent
spray ADDRESS PORT COUNT
                        COUNT datagrams, each from the same port, which nobody answers
ask ADDRESS PORT [udp]  one exchange: 7 bytes, and 100 as the answer
names ADDRESS           a name server: every name has that address
lookup SERVER NAME      asks a name server for the address of a name
sniff DEVICE            counts what passes, until stdin ends; then a line of JSON
"""

import json
import os
import select
import socket
import struct
import sys
import threading


def serve(first, count):
    names = {}
    poll = select.epoll()
    resource_limit()
    for port in range(first, first + count):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(socket.AF_INET, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", port))
            if kind == socket.SOCK_STREAM:
                s.listen(4096)
            poll.register(s, select.EPOLLIN)
            names[s.fileno()] = s
    print("listening", flush=True)
    lines = {}
    while True:
        for fd, _ in poll.poll():
            s = names[fd]
            if s.type == socket.SOCK_DGRAM:
                data, peer = s.recvfrom(65536)
                s.sendto(b"x" * int(data.split()[0]), peer)
            elif s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                c, _ = s.accept()
                names[c.fileno()] = c
                lines[c.fileno()] = b""
                poll.register(c, select.EPOLLIN)
            else:
                try:
                    data = s.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    poll.unregister(fd)
                    del names[fd]
                    s.close()
                    continue
                before = lines[fd]
                if before is None:
                    continue
                line = before + data
                lines[fd] = None if b"\n" in line else line
                if b"\n" in line:
                    s.sendall(b"x" * int(line.split(b"\n")[0].split()[0]))


def resource_limit():
    import resource
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def exchange(kind, address, port, size, own=0):
    """Asks for some bytes, and gets them; the question has as many bytes as makes it differ from others."""
    question = b"%d \n" % size
    question = question[:-1] + b"." * (size % 97) + b"\n"
    with socket.socket(socket.AF_INET, kind) as s:
        s.settimeout(20)
        if own:
            s.bind(("", own))
        s.connect((address, port))
        s.sendall(question)
        got = 0
        while got < size:
            data = s.recv(65536)
            if not data:
                raise SystemExit("an answer is too short")
            got += len(data)
        if kind == socket.SOCK_STREAM:
            s.shutdown(socket.SHUT_WR)
            if s.recv(1) != b"":
                raise SystemExit("an answer is too long")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ping(address, identifier, size):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.settimeout(20)
        body = b"p" * size
        header = struct.pack("!BBHHH", 8, 0, 0, identifier, 1)
        header = struct.pack("!BBHHH", 8, 0, checksum(header + body), identifier, 1)
        s.sendto(header + body, (address, 0))
        while True:
            data = s.recv(65536)
            t = (data[0] & 15) * 4
            if data[t] == 0 and struct.unpack("!H", data[t + 4:t + 6])[0] == identifier:
                return


def drive(address, first, count, flows):
    done = []

    def part(kind):
        for i in range(flows):
            if kind == "ping":
                ping(address, 1000 + i, 1 + i)
            else:
                # Datagrams from a port that was used before would be of the same flow.
                own = 20000 + i if kind == socket.SOCK_DGRAM else 0
                exchange(kind, address, first + i % count, 1 + i, own)
        done.append(kind)

    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM, "ping"]
    threads = [threading.Thread(target=part, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) < len(kinds):
        os._exit(1)
    print("done", flush=True)


def hold(address, port, flows):
    resource_limit()
    held = []
    for _ in range(flows):
        held.append(socket.create_connection((address, port), 20))
    print("open", flush=True)
    sys.stdin.read()


def stream(address, port):
    s = socket.create_connection((address, port), 20)
    s.sendall(b"0\n")
    print("begun", flush=True)
    sent = 2
    longest = 0
    import time
    last = time.monotonic()
    data = b"y" * 16384
    while not select.select([sys.stdin], [], [], 0)[0]:
        s.sendall(data)
        sent += len(data)
        now = time.monotonic()
        longest = max(longest, now - last)
        last = now
    print(json.dumps({"sent": sent, "longest": longest}), flush=True)


def spray(address, port, count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for _ in range(count):
            s.sendto(b"z", (address, port))
    print("done", flush=True)


def ask(address, port, kind="tcp"):
    kind = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as s:
        s.settimeout(20)
        s.connect((address, port))
        s.sendall(b"100 ..\n")
        got = 0
        while got < 100:
            got += len(s.recv(65536)) or 1000
        if got != 100:
            raise SystemExit("it is no answer")
    print("done", flush=True)


def names(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 53))
        print("listening", flush=True)
        while True:
            data, peer = s.recvfrom(512)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
            s.sendto(data[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + data[12:] + record, peer)


def lookup(server, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(20)
        s.sendto(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1", (server, 53))
        print(socket.inet_ntoa(s.recv(512)[-4:]), flush=True)


def sniff(device):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    s.bind((device, 0x0003))
    s.setblocking(False)
    print("sniffing", flush=True)
    seen = {}
    while True:
        ready, _, _ = select.select([s, sys.stdin], [], [])
        if s in ready:
            try:
                data, (_, _, kind, _, _) = s.recvfrom(1 << 17)
            except BlockingIOError:
                continue
            note(seen, data, kind == 4)  # PACKET_OUTGOING
        elif sys.stdin in ready:
            break
    packets, drops = struct.unpack("II", s.getsockopt(263, 6, 8))  # PACKET_STATISTICS
    print(json.dumps({"drops": drops, "flows": list(seen.values())}), flush=True)


def note(seen, data, out):
    if len(data) < 20 or data[0] >> 4 != 4:
        return
    t = (data[0] & 15) * 4
    end = struct.unpack("!H", data[2:4])[0] or len(data)
    protocol = data[9]
    source, destination = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
    peer = destination if out else source
    if protocol == 6 or protocol == 17:
        a, b = struct.unpack("!HH", data[t:t + 4])
        own, port = (a, b) if out else (b, a)
        name = "tcp" if protocol == 6 else "udp"
    elif protocol == 1 and data[t] in (0, 8):
        own, port, name = struct.unpack("!H", data[t + 4:t + 6])[0], None, "icmp"
    else:
        return
    flow = seen.setdefault((name, own, peer, port), {
        "protocol": name, "address": peer, "port": port, "sent": 0, "received": 0, "isn": {},
    })
    way = "sent" if out else "received"
    if name == "tcp":
        seq, flags, offset = struct.unpack("!I", data[t + 4:t + 8])[0], data[t + 13], (data[t + 12] >> 4) * 4
        if flags & 2:
            flow["isn"][way] = seq
            return
        size = end - t - offset
        if size > 0 and way in flow["isn"]:
            # What was sent again counts once.
            flow[way] = max(flow[way], (seq + size - flow["isn"][way] - 1) & 0xffffffff)
    else:
        flow[way] += end - t - 8


COMMANDS = {"serve": serve, "drive": drive, "hold": hold, "stream": stream, "spray": spray, "ask": ask, "names": names, "lookup": lookup, "sniff": sniff}

if __name__ == "__main__":
    command, *words = sys.argv[1:]
    COMMANDS[command](*(int(word) if word.isdigit() else word for word in words))
    sys.stdout.flush()
    os._exit(0)
