"""Sockets for tests of multicast groups: takes one command in JSON a line, and answers each with one line."""
import json
import select
import socket
import struct
import sys
import threading

IP_RECVTTL, IPV6_RECVHOPLIMIT = 12, 51
MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP = 42, 45, 46, 47
SO_REUSEADDR, SO_BROADCAST = socket.SO_REUSEADDR, socket.SO_BROADCAST

sockets = {}
received = {}
lock = threading.Lock()
wake_reader, wake_writer = socket.socketpair()


def level(s):
    return socket.IPPROTO_IPV6 if s.family == socket.AF_INET6 else socket.IPPROTO_IP


def address(s, host, port=0):
    if s.family == socket.AF_INET:
        return struct.pack("=HH4s8x112x", s.family, 0, socket.inet_aton(host))
    return struct.pack("=HHI16sI100x", s.family, 0, 0, socket.inet_pton(s.family, host), 0)


def request(s, device, *hosts):
    return struct.pack("@I4x", socket.if_nametoindex(device)) + b"".join(address(s, host) for host in hosts)


def endpoint(s, host, port, device):
    if s.family == socket.AF_INET:
        return (host, port)
    return (host, port, 0, socket.if_nametoindex(device) if device else 0)


def receive():
    while True:
        with lock:
            watched = list(sockets.values())
        ready, _, _ = select.select([wake_reader, *watched], [], [])
        if wake_reader in ready:
            wake_reader.recv(4096)
        with lock:
            for name, s in sockets.items():
                if s not in ready:
                    continue
                try:
                    data, control, _, sender = s.recvmsg(65535, 256, socket.MSG_DONTWAIT)
                except OSError:
                    continue
                hops = next((struct.unpack("i", value[:4])[0] for _, _, value in control), None)
                received[name].append([data.decode(errors="replace"), sender[0].split("%")[0], sender[1], hops])


def query(version, device):
    """Sends a general query of IGMP (1, 2), or of the first version of MLD (0)."""
    if version == 0:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, bytes([0, 0, 5, 2, 0, 0, 1, 0]))  # router alert
            message = struct.pack("!BBHHH16x", 130, 0, 0, 1, 0)  # to be answered within a millisecond
            s.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex(device)))
        return
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP) as s:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([0x94, 4, 0, 0]))  # router alert
        index = struct.pack("@4s4si", bytes(4), bytes(4), socket.if_nametoindex(device))
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, index)
        delay = 1 if version == 2 else 0  # tenths of a second; none marks the first version
        s.sendto(struct.pack("!BBHI", 0x11, delay, ~(0x1100 | delay) & 0xffff, 0), ("224.0.0.1", 0))


def flood(device, count, port):
    """Joins groups from 239.80.0.0 on, 20 by each socket, as many as the kernel permits; each has its own port."""
    for first in range(0, count, 20):
        s = sockets[f"flood {port + first // 20}"]
        for i in range(first, min(count, first + 20)):
            s.setsockopt(socket.IPPROTO_IP, MCAST_JOIN_GROUP, request(s, device, f"239.80.{i >> 8}.{i & 255}"))


def bind_many(count, port):
    """Opens sockets that are bound to ports from a given one on."""
    for number in range(port, port + count):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with lock:
            sockets[f"flood {number}"] = s
            received[f"flood {number}"] = []
        s.bind(("0.0.0.0", number))


def act(command, name, *rest):
    if command == "open":  # NAME FAMILY REUSE
        family, reuse = rest
        s = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, SO_REUSEADDR, reuse)
        s.setsockopt(socket.SOL_SOCKET, SO_BROADCAST, 1)
        if family == 6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
        else:
            s.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        with lock:
            sockets[name] = s
            received[name] = []
        wake_writer.send(b"x")
        return None
    if command == "query":  # VERSION DEVICE
        return query(name, *rest)
    if command == "bind many":  # COUNT PORT
        return bind_many(name, *rest)
    if command == "flood":  # DEVICE COUNT PORT
        return flood(name, *rest)
    if command == "close all":  # PREFIX
        with lock:
            for one in [one for one in sockets if one.startswith(name)]:
                sockets.pop(one).close()
        wake_writer.send(b"x")  # who waits for a socket keeps it open
        return None
    if command == "received":
        with lock:
            return received[name]
    s = sockets[name]
    if command == "bind":  # NAME HOST PORT DEVICE: the port
        s.bind(endpoint(s, *rest))
        return s.getsockname()[1]
    if command == "close":
        with lock:
            sockets.pop(name).close()
        wake_writer.send(b"x")
        return None
    if command == "send":  # NAME HOST PORT DEVICE TEXT HOPS
        host, port, device, text, hops = rest
        if hops and s.family == socket.AF_INET:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
        elif hops:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
        if s.family == socket.AF_INET and device:
            index = struct.pack("@4s4si", bytes(4), bytes(4), socket.if_nametoindex(device))
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, index)
        s.sendto(text.encode(), endpoint(s, host, port, device))
        return s.getsockname()[1]
    # NAME DEVICE GROUP [SOURCE]
    device, *hosts = rest
    option = {
        "join": [MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP],
        "leave": [MCAST_LEAVE_GROUP, MCAST_LEAVE_SOURCE_GROUP],
    }[command][len(hosts) - 1]
    s.setsockopt(level(s), option, request(s, device, *hosts))
    return None


threading.Thread(target=receive, daemon=True).start()
for line in sys.stdin:
    try:
        answer = {"is": act(*json.loads(line))}
    except OSError as error:
        answer = {"error": error.errno}
    print(json.dumps(answer), flush=True)
