"""Sends echo requests with COUNT identifiers to ADDRESS by a raw socket, and prints the number of replies: ADDRESS COUNT."""
import socket
import struct
import sys
import time

address, count = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
s.setblocking(False)
seen = set()


def take(seconds):
    end = time.time() + seconds
    while True:
        try:
            packet = s.recv(2048)
        except BlockingIOError:
            if time.time() > end or len(seen) == count:
                return
            time.sleep(0.001)
            continue
        if packet[20] == 0:
            seen.add(packet[24:26])


for i in range(1, count + 1):
    total = 0x0800 + i + 1
    total = (total & 0xFFFF) + (total >> 16)
    s.sendto(struct.pack("!BBHHH", 8, 0, 0xFFFF ^ total, i, 1), (address, 0))
    if i % 50 == 0:
        take(0.005)
take(30)
print(len(seen))
