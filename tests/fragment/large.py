"""Datagrams of any size: `echo PORT` sends back what comes; `ask ADDRESS PORT SIZE...` prints the sizes that came back whole."""
import json
import os
import socket
import sys

mode, *rest = sys.argv[1:]
if mode == "echo":
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", int(rest[0])))
    while True:
        data, peer = s.recvfrom(65535)
        s.sendto(data, peer)

address, port, *sizes = rest[0], *map(int, rest[1:])
back = []
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(2)
    s.connect((address, port))
    for size in sizes:
        data = os.urandom(size)
        for _ in range(20):
            s.send(data)
            try:
                if s.recv(65535) == data:
                    back.append(size)
                    break
            except TimeoutError:
                pass
print(json.dumps(back))
