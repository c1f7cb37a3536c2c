# Sends mutated messages of DHCP, DHCPv6 and router discovery: `DEVICE COUNT SEED`, and on stdin correct ones, a line each,
# as hexadecimal digits: `4 MESSAGE`, `6 MESSAGE` or `r MESSAGE`. From time to time it sends a correct one of DHCPv6, and
# waits for the answer: nobody can send so fast that nothing arrives. Prints how many were answered.
import random
import select
import socket
import sys

device, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lines = [line.split() for line in sys.stdin]
messages = [(kind, bytes.fromhex(text)) for kind, text in lines]
random.seed(seed)
index = socket.if_nametoindex(device)


def opened(family, kind, protocol=0):
    s = socket.socket(family, kind, protocol)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    s.setblocking(False)
    return s


four = opened(socket.AF_INET, socket.SOCK_DGRAM)
four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
four.bind(("0.0.0.0", 68))
six = opened(socket.AF_INET6, socket.SOCK_DGRAM)
six.bind(("::", 546))
router = opened(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
ways = {
    "4": (four, ("255.255.255.255", 67)),
    "6": (six, ("ff02::1:2", 547, 0, index)),
    "r": (router, ("ff02::2", 0, 0, index)),
}


def drain():
    answers = 0
    for s, _ in ways.values():
        while True:
            try:
                s.recv(65536)
                answers += 1
            except BlockingIOError:
                break
    return answers


def mutated(message):
    data = bytearray(message)
    for _ in range(random.randrange(6)):
        if data:
            data[random.randrange(len(data))] = random.choice((0, 1, 255, random.randrange(256)))
    choice = random.randrange(8)
    if choice == 0:
        del data[random.randrange(len(data) + 1) :]
    elif choice == 1:
        data += random.randbytes(random.randrange(1200))
    elif choice == 2:
        at = random.randrange(len(data) + 1)
        data[at:at] = data[random.randrange(len(data) + 1) :]
    return bytes(data)


def alive():
    """Waits until a correct message is answered."""
    s, to = ways["6"]
    correct = next(message for kind, message in messages if kind == "6")
    for _ in range(60):
        token = random.randbytes(3)
        s.sendto(correct[:1] + token + correct[4:], to)
        end = select.select([s], [], [], 1)[0]
        while end:
            if s.recv(65536)[1:4] == token:
                return
            end = select.select([s], [], [], 1)[0]
    sys.exit("a correct message is answered no longer")


answered = 0
for i in range(count):
    kind, message = random.choice(messages)
    s, to = ways[kind]
    try:
        s.sendto(mutated(message), to)
    except OSError:
        pass
    if i % 100 == 99:
        answered += drain()
        alive()
print(answered)
