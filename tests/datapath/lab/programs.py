"""Programs for tests, as others write them: `programs.py MODE ARGUMENT...`; each prints one line of JSON at its end."""
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

mode, *rest = sys.argv[1:]
SIOCOUTQ = 0x5411


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(address, port=0, bind=None):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    if bind is not None or port:
        s.bind((bind or ("::" if ":" in address else "0.0.0.0"), port))
    return s


def send_much(s):
    """Sends more than is ever on the way to a slow reader, and waits until all of it is acknowledged."""
    s.sendall(bytes(16 << 20))
    while struct.unpack("i", fcntl.ioctl(s, SIOCOUTQ, bytes(4)))[0] > 0:
        time.sleep(0.001)


def say(value):
    print(json.dumps(value), flush=True)


if mode == "claim":  # ADDRESS PORT FIRST LAST: datagrams from each port until one is answered; how many were
    address, port, first, last = rest[0], *map(int, rest[1:])
    sent = answers = 0
    for own in range(first, last + 1):
        try:
            with udp(address, own) as s:
                s.settimeout(1)
                sent += 1
                for _ in range(10):
                    s.sendto(b"x", (address, port))
                    try:
                        answers += s.recv(9) == b"x"
                        break
                    except TimeoutError:
                        pass
        except OSError:
            pass
    say([sent, answers])
elif mode == "take":  # PORT...: the ports that cannot be bound; then how often of 50 times no port is given for the asking
    refused = []
    for port in map(int, rest):
        try:
            udp("0.0.0.0", port).close()
        except OSError:
            refused.append(port)
    failed = 0
    for _ in range(50):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            s.connect(("127.0.0.1", 9))
        except OSError:
            failed += 1
    say([refused, failed])
elif mode == "echo":  # PORT: answers each datagram, on all addresses
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    six.bind(("::", int(rest[0])))
    while True:
        data, peer = six.recvfrom(65535)
        six.sendto(data, peer)
elif mode == "tftp":  # PORT ANOTHER...: answers each datagram from another port, and from each other address
    port = int(rest[0])
    for address in "0.0.0.0", "::":
        s = socket.socket(family(address), socket.SOCK_DGRAM)
        if address == "::":
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((address, port))

        def serve(s=s, address=address):
            kind = family(address)
            others = [socket.socket(kind, socket.SOCK_DGRAM)]
            for other in rest[1:]:
                if family(other) == kind:
                    more = socket.socket(kind, socket.SOCK_DGRAM)
                    more.bind((other, port + 1))
                    others.append(more)
            while True:
                data, peer = s.recvfrom(65535)
                for i, other in enumerate(others):
                    other.sendto(data + b"%d" % i, peer)

        threading.Thread(target=serve).start()
elif mode == "ask":  # ADDRESS PORT COUNT [connected]: sends one datagram; the answers, by sender, of COUNT that are awaited
    address, port, count = rest[0], int(rest[1]), int(rest[2])
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    if rest[3:]:
        s.connect((address, port))
        s.send(b"q")
    else:
        s.sendto(b"q", (address, port))
    s.settimeout(1.5)
    got = []
    try:
        while len(got) < count:
            data, peer = s.recvfrom(65535)
            got.append([data.decode(), peer[0], peer[1] == port])
    except OSError:
        pass
    say(sorted(got))
elif mode == "many":  # ADDRESS PORT COUNT: from one port to COUNT ports and back; wrong answers
    address, port, count = rest[0], int(rest[1]), int(rest[2])
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.settimeout(10)
    right = wrong = 0
    for i in range(count):
        s.sendto(b"%d" % (i % 8), (address, port + i % 8))
        try:
            data, peer = s.recvfrom(99)
        except OSError:
            continue
        if data == b"%d" % (i % 8) and peer[1] == port + i % 8:
            right += 1
        else:
            wrong += 1
    say([right, wrong])
elif mode == "once":  # ADDRESS PORT COUNT TIMES: asks each of COUNT ports from one port, TIMES times; answers, and refused ports
    address, port, count, times = rest[0], *map(int, rest[1:])
    s = udp(address)
    # Errors of an unconnected socket, with where its datagram went.
    level, option = (socket.IPPROTO_IPV6, 25) if ":" in address else (socket.IPPROTO_IP, 11)
    s.setsockopt(level, option, 1)
    s.settimeout(20)
    answers, refused = 0, set()
    for _ in range(times):
        for to in range(port, port + count + 1):
            s.sendto(b"q", (address, to))
            try:
                answers += s.recvfrom(99)[1][1] == to
            except ConnectionRefusedError:
                refused.add(s.recvmsg(99, 512, socket.MSG_ERRQUEUE)[3][1] - port)
    say([answers, sorted(refused)])
elif mode == "hold":  # ADDRESS PORT OWN SECONDS: datagrams from port OWN, and what else comes there until "stranger" does
    address, port, own, seconds = rest[0], int(rest[1]), int(rest[2]), float(rest[3])
    s = udp(address, own)
    s.sendto(b"q", (address, port))
    print("sent", flush=True)
    end = time.time() + seconds
    got = []
    while time.time() < end:
        s.settimeout(5)
        try:
            data, peer = s.recvfrom(99)
            got.append([data.decode(), peer[0]])
            if data == b"stranger":
                break
        except TimeoutError:
            s.sendto(b"q", (address, port))
        except OSError:
            pass
    say(got)
elif mode == "send":  # FROM TO PORT DATA: one datagram
    s = udp(rest[1], 0, rest[0])
    s.sendto(rest[3].encode(), (rest[1], int(rest[2])))
elif mode == "long":  # PORT SIZE: answers each question with that many bytes
    s = udp("::1", int(rest[0]), "::1")
    while True:
        data, peer = s.recvfrom(65535)
        s.sendto(data + b"\0" * (int(rest[1]) - len(data)) if data != b"short" else data, peer)
elif mode == "half":  # ADDRESS PORT COUNT: connections that are closed at once, and one that is only half closed
    connections = [socket.create_connection((rest[0], int(rest[1]))) for _ in range(int(rest[2]))]
    for one in connections:
        one.close()
    with socket.create_connection((rest[0], int(rest[1]) + 1)) as kept:
        kept.shutdown(socket.SHUT_WR)
        print("closed", flush=True)
        say(kept.recv(99).decode())
elif mode == "stuff":  # ADDRESS PORT: sends as much as is taken within a second, and is killed then
    s = socket.create_connection((rest[0], int(rest[1])))
    s.setblocking(False)
    end = time.time() + 1
    while time.time() < end:
        try:
            s.send(bytes(65536))
        except BlockingIOError:
            time.sleep(0.02)
    print("stuffed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif mode == "never":  # PORT: accepts connections and never closes; those to the next port get an answer after 20 s
    def late(server):
        while True:
            one = server.accept()[0]
            time.sleep(20)
            one.sendall(b"late")
            one.close()

    threading.Thread(target=late, args=[socket.create_server(("", int(rest[0]) + 1))]).start()
    server = socket.create_server(("", int(rest[0])), backlog=500)
    held = []
    while True:
        held.append(server.accept())
elif mode == "keepalive":  # ADDRESS PORT: how long an idle connection with keepalive (1 s, 1 s, 3 probes) lasts, and its end
    s = socket.create_connection((rest[0], int(rest[1])))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3):
        s.setsockopt(socket.IPPROTO_TCP, option, value)
    print("connected", flush=True)
    s.settimeout(120)
    try:
        say(["data", s.recv(9).decode()])
    except OSError as error:
        say([type(error).__name__, error.errno])
elif mode == "patience":  # ADDRESS PORT MS WHAT: an exchange; after a line of input, WHAT, and how and when it ends
    ms, what = int(rest[2]), rest[3]
    s = socket.create_connection((rest[0], int(rest[1])))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ms)
    s.sendall(b"x")
    s.recv(1)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.time()
    try:
        if what == "stream":
            while True:
                s.sendall(bytes(65536))
        s.sendall(bytes(100 if what != "much" else 300_000))
        if what == "half":
            s.shutdown(socket.SHUT_WR)
        s.settimeout(60)
        say(["data", s.recv(9).decode(), time.time() - begin])
    except OSError as error:
        say([type(error).__name__, error.errno, time.time() - begin])
elif mode == "reluctant":  # PORT SECONDS [PAUSE]: answers the first byte, reads nothing for a time, then all; says how much
    server = socket.create_server(("", int(rest[0])))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def serve(s):
        s.sendall(s.recv(1))
        time.sleep(float(rest[1]))
        got = 0
        try:
            while got < 300_000:
                got += len(s.recv(8192)) or 1_000_000
                time.sleep(float(rest[2]) if rest[2:] else 0)
            s.sendall(b"%d" % got)
        except OSError:
            pass

    while True:
        threading.Thread(target=serve, args=[server.accept()[0]]).start()
elif mode == "accept":  # PORT: accepts connections on all addresses, and closes each after its peer
    def drain(connection):
        with connection:
            connection.recv(1)

    server = socket.create_server(("::", int(rest[0])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4000)
    threading.stack_size(128 << 10)
    while True:
        threading.Thread(target=drain, args=[server.accept()[0]]).start()
elif mode == "connect":  # ADDRESS PORT COUNT [close]: connections at a time, or one after the other; how many succeeded
    held, done = [], 0
    for _ in range(int(rest[2])):
        try:
            s = socket.create_connection((rest[0], int(rest[1])), 30)
        except OSError:
            continue
        done += 1
        if rest[3:]:
            s.shutdown(socket.SHUT_WR)
            s.recv(1)
            s.close()
        else:
            held.append(s)
    print(done, flush=True)
    if not rest[3:]:
        time.sleep(600)
elif mode == "portless":  # ADDRESS PORT: one datagram, and then a raw one from the same port to port 0; what answers the next
    address, port = rest[0], int(rest[1])
    s = udp(address, 5400)
    s.settimeout(5)
    s.sendto(b"q0", (address, port))
    raw = socket.socket(family(address), socket.SOCK_RAW, socket.IPPROTO_UDP)
    if ":" in address:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)
    raw.sendto(bytes([5400 >> 8, 5400 & 255, 0, 0, 0, 9, 0, 0, 33]), (address, 0))
    time.sleep(0.3)
    s.sendto(b"q1", (address, port))
    try:
        say(s.recv(9).decode())
    except TimeoutError:
        say(None)
elif mode == "single":  # ADDRESS PORT: one datagram; the error that it meets within five seconds
    s = udp(rest[0])
    s.connect((rest[0], int(rest[1])))
    s.settimeout(5)
    s.send(b"x")
    try:
        say(s.recv(9).decode())
    except OSError as error:
        say(error.errno)
elif mode == "full":  # BACKLOG PORT...: listens, and accepts and echoes after a line of input only
    import select

    servers = [
        socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=int(rest[0]))
        for port in map(int, rest[1:])
    ]
    print("ready", flush=True)
    sys.stdin.readline()
    held = []
    while True:
        for one in select.select(servers + held, [], [])[0]:
            if one in servers:
                held.append(one.accept()[0])
                continue
            try:
                data = one.recv(9)
            except OSError:
                data = b""
            if data:
                one.sendall(data)
            else:
                held.remove(one)
elif mode == "wait":  # ADDRESS PORT COUNT RESETS: COUNT silent connections; when RESETS are reset, and then what the others get
    count, wanted = int(rest[2]), int(rest[3])
    all = [socket.create_connection((rest[0], int(rest[1])), 60) for _ in range(count)]
    print("connected", flush=True)
    end = time.time() + 100
    broken = []
    while len(broken) < wanted and time.time() < end:
        time.sleep(0.1)
        broken += [s for s in all if s not in broken and s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0]
    say(len(broken))
    sys.stdin.readline()
    echoed = 0
    for s in all:
        if s not in broken:
            try:
                s.sendall(b"x")
                echoed += s.recv(9) == b"x"
            except OSError:
                pass
    say(echoed)
elif mode in ("stay", "leave"):  # accept|connect ADDRESS PORT COUNT [HOW]: COUNT connections, made on that side
    side, address, port, count = rest[0], rest[1], int(rest[2]), int(rest[3])
    if side == "accept":
        server = socket.create_server((address, port), family=family(address), backlog=100)
        all = [server.accept()[0] for _ in range(count)]
    else:
        all = [socket.create_connection((address, port), 60) for _ in range(count)]
    if mode == "leave":  # HOW: "abort", a reset right behind the end of the stream; "much", and much before that; or "killed"
        time.sleep(0.5)
        if rest[4] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        for s in all:
            if rest[4] == "much":
                send_much(s)
            s.shutdown(socket.SHUT_WR)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.close()
    else:  # says nothing and reads slowly; how many streams have ended, and how many connections are reset then
        ended = 0
        for s in all:
            while data := s.recv(8192):
                time.sleep(0.001)
            ended += data == b""
        end = time.time() + 100
        broken = set()
        while len(broken) < count and time.time() < end:
            time.sleep(0.1)
            broken |= {s for s in all if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0}
        say([ended, len(broken)])
elif mode == "who":  # PORT: answers each datagram with itself, and the address that it is from
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("::", int(rest[0])))
    while True:
        data, peer = s.recvfrom(9)
        s.sendto(data + b" " + peer[0].removeprefix("::ffff:").encode(), peer)
elif mode == "am":  # PORT LINK OWN ADDRESS...: a datagram from OWN to each address, by one socket; the addresses that came back
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind((rest[2], 0))
    s.settimeout(1)
    got = []
    for i, address in enumerate(rest[3:]):
        for _ in range(60):
            s.sendto(b"%d" % i, (address, int(rest[0]), 0, int(rest[1]) if address.startswith("fe80") else 0))
            try:
                while True:  # what answers an earlier question may come late
                    number, seen = s.recv(99).decode().split()
                    if number == str(i):
                        break
                got.append(seen)
                break
            except TimeoutError:
                pass
    say(got)
elif mode == "offender":  # ADDRESS PORT: a datagram, until one is refused; who has refused it, by the socket's error queue
    s = udp(rest[0])
    level, option = (socket.IPPROTO_IPV6, 25) if ":" in rest[0] else (socket.IPPROTO_IP, 11)
    s.setsockopt(level, option, 1)
    s.settimeout(1)
    for _ in range(60):
        try:
            s.sendto(b"q", (rest[0], int(rest[1])))
            s.recv(9)
        except TimeoutError:
            continue
        except OSError:
            pass
        break
    try:
        data = s.recvmsg(99, 512, socket.MSG_ERRQUEUE)[1][0][2]  # sock_extended_err, and a sockaddr
        six = data[16] == socket.AF_INET6
        say(socket.inet_ntop(socket.AF_INET6, data[24:40]) if six else socket.inet_ntoa(data[20:24]))
    except OSError as error:
        say(str(error))
