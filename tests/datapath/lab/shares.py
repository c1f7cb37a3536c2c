"""What each of many namespaces gets of one penne: `shares.py up|down PEER ADDRESS PORT BYTES GUEST=CONNECTIONS...`.

This process has both ends of all connections, in the namespaces PEER and GUEST, and counts what arrives in one window of
time that all guests share. The window begins after BYTES / 4 and lasts for BYTES, both per guest on average, so a slow
machine only makes it longer. In each round of the loop, all guests may send and receive as much, however many connections
they have. Buffers are small: were they left to the kernel, a hundred connections could use up its memory for TCP
(net.ipv4.tcp_mem), and then it starves some of them. Prints the bytes of each guest as JSON.
"""
import ctypes
import json
import os
import select
import socket
import sys
import time

CLONE_NEWNET = 0x40000000
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
CHUNK = 64 << 10
BUFFER, BUFFER_MAX = 512 << 10, 4 << 20
LIMIT = 120  # seconds

way, peer, address, port, size, *guests = sys.argv[1:]
size = int(size)
libc = ctypes.CDLL(None, use_errno=True)


def make(netns):
    """A socket in a namespace."""
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)


listener = make(peer)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, int(port)))
listener.listen(64)
epoll = select.epoll()
senders, receivers = {}, {}
counts = [int(guest.partition("=")[2]) for guest in guests]
for i, guest in enumerate(guests):
    netns = guest.partition("=")[0]
    for _ in range(counts[i]):
        inside = make(netns)
        inside.settimeout(10)
        inside.connect((address, int(port)))
        outside, _ = listener.accept()
        sender, receiver = (inside, outside) if way == "up" else (outside, inside)
        tries = max(counts) // counts[i]
        for s in sender, receiver:
            s.setblocking(False)
            for option in SO_SNDBUFFORCE, SO_RCVBUFFORCE:
                s.setsockopt(socket.SOL_SOCKET, option, min(BUFFER * tries, BUFFER_MAX))
        senders[sender.fileno()] = sender, tries
        receivers[receiver.fileno()] = receiver, tries, i
for fd in senders:
    epoll.register(fd, select.EPOLLOUT)
for fd in receivers:
    epoll.register(fd, select.EPOLLIN)

block = bytes(CHUNK)
got = [0] * len(guests)
total = 0
before = None
end = time.monotonic() + LIMIT
while True:
    if time.monotonic() > end:
        sys.exit(f"{total} bytes in {LIMIT} seconds")
    for fd, _ in epoll.poll(-1, len(senders) + len(receivers)):
        try:
            if fd in senders:
                s, tries = senders[fd]
                for _ in range(tries):
                    s.send(block)
            else:
                s, tries, i = receivers[fd]
                for _ in range(tries):
                    n = len(s.recv(CHUNK))
                    got[i] += n
                    total += n
        except BlockingIOError:
            pass
    if before is None and total >= size * len(guests) / 4:
        before, total = got[:], 0
    elif before is not None and total >= size * len(guests):
        break
print(json.dumps([now - then for now, then in zip(got, before)]))
