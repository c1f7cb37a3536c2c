"""Servers for tests of datagrams, which print "ready" first: `stun ADDRESS OTHER`, and `ssdp INTERFACE ADDRESS`."""
import selectors
import socket
import struct
import sys


def ready():
    print("ready", flush=True)


def attribute(kind, address):
    """An address as RFC 3489 section 11.2.1 has it."""
    return struct.pack("!HHxBH4s", kind, 8, 1, address[1], socket.inet_aton(address[0]))


def stun(*addresses):
    """Answers binding requests as RFC 3489 section 8.1 says, at two addresses and two ports."""
    sockets = {}
    selector = selectors.DefaultSelector()
    for i, address in enumerate(addresses):
        for j, port in enumerate((3478, 3479)):
            s = sockets[i, j] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind((address, port))
            selector.register(s, selectors.EVENT_READ, (i, j))
    ready()
    while True:
        for key, _ in selector.select():
            (i, j), (message, sender) = key.data, key.fileobj.recvfrom(2048)
            if len(message) < 20 or message[:2] != b"\0\1":
                continue
            change, at = 0, 20
            while at + 4 <= len(message):
                kind, length = struct.unpack_from("!HH", message, at)
                if kind == 3:  # CHANGE-REQUEST
                    change = struct.unpack_from("!I", message, at + 4)[0]
                at += 4 + length
            origin = sockets[i ^ (change >> 2 & 1), j ^ (change >> 1 & 1)]
            body = attribute(1, sender) + attribute(4, origin.getsockname())
            body += attribute(5, sockets[i ^ 1, j ^ 1].getsockname())
            origin.sendto(struct.pack("!HH", 0x101, len(body)) + message[4:20] + body, sender)


def ssdp(device, address):
    """Answers searches to 239.255.255.250 as a router does (UPnP Device Architecture 1.1, section 1.3.3)."""
    target = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", 1900))
    member = socket.inet_aton("239.255.255.250") + bytes(4) + struct.pack("@i", socket.if_nametoindex(device))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    ready()
    while True:
        text, sender = s.recvfrom(2048)
        if not text.startswith(b"M-SEARCH * HTTP/1.1\r\n") or target.encode() not in text:
            continue
        lines = [
            "HTTP/1.1 200 OK", "CACHE-CONTROL: max-age=60", "EXT:", f"LOCATION: http://{address}:9/root.xml",
            "SERVER: test/1 UPnP/1.1 test/1", f"ST: {target}", f"USN: uuid:penne::{target}", "", "",
        ]
        # From another port than that of the group, as many devices answer.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((address, 0))
            other.sendto("\r\n".join(lines).encode(), sender)


{"stun": stun, "ssdp": ssdp}[sys.argv[1]](*sys.argv[2:])
