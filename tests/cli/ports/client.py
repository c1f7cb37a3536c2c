"""Programs of the tests of ports, by their first argument.

serve PORT             answers "from ADDRESS" and then every line, by TCP and UDP
ask KIND ADDRESS PORT  prints the answer to one line, or the error
hold KIND ADDRESS PORT connects, prints a line; then asks a line for each line of its input
silent SOCKET COUNT    connects so often and says nothing; prints how many connections there are, and waits for input
garbage SOCKET         says what has no meaning, and takes no reply; prints how each connection ends
deaf SOCKET            sends requests until it is disconnected, and reads no reply; prints "disconnected"
"""

import json, os, random, select, socket, sys, threading

MODE, ARGS = sys.argv[1], sys.argv[2:]
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def echo(connection):
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)


def serve(port):
    tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.bind(("::", port))
    print("ready", flush=True)
    while True:
        for ready in select.select([tcp, udp], [], [])[0]:
            if ready is tcp:
                threading.Thread(target=echo, args=(tcp.accept()[0],), daemon=True).start()
            else:
                data, peer = udp.recvfrom(4096)
                udp.sendto(data, peer)


def dial(kind, address, port):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, KINDS[kind])
    s.settimeout(5)
    s.connect((address, int(port)))
    return s


def ask(s, text):
    try:
        s.send(text)
        return s.recv(4096).decode() or "closed"
    except OSError as error:
        return type(error).__name__


def control(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    s.connect(path)
    return s


if MODE == "serve":
    serve(int(ARGS[0]))
elif MODE == "ask":
    try:
        print(ask(dial(*ARGS), b"hello"))
    except OSError as error:
        print(type(error).__name__)
elif MODE == "hold":
    s = dial(*ARGS)
    print(ask(s, b"begun"), flush=True)
    for line in sys.stdin:
        print(ask(s, line.strip().encode()), flush=True)
elif MODE == "silent":
    connections = []
    for _ in range(int(ARGS[1])):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.setblocking(False)
        try:
            s.connect(ARGS[0])
            connections.append(s)
        except BlockingIOError:
            s.close()
    print(len(connections), flush=True)
    sys.stdin.read()
elif MODE == "garbage":
    random.seed(14)
    for packet in [b"{", b"null", b"[]", b"7", b"\xff\xfe", b"{}", b'{"call":1}', b'{"call":"ports.add"}', b"[" * 60000,
                   b'{"call":"ports.add","rules":[]}', b'{"call":"ports.add","rules":[{}]}', b"x" * 65537, b"x" * 150000,
                   b'{"call":"ports.add","rules":' + json.dumps([dict(protocol="TCP", address="1.2.3", interface=None,
                   first=1, last=2, to=3, target=None, bestEffort=False, scan=False)]).encode() + b"}",
                   *[random.randbytes(random.randrange(1, 2000)) for _ in range(50)]]:
        with control(ARGS[0]) as s:
            s.send(packet)
            reply = json.loads(s.recv(1 << 18))
            assert reply["ok"] is False and reply["error"]["kind"] == "request", (packet[:50], reply)
        with control(ARGS[0]) as s:
            s.send(packet)  # and does not wait
    print("refused")
elif MODE == "deaf":
    s = control(ARGS[0])
    try:
        for _ in range(1_000_000):
            s.send(b'{"call":"ports.list"}')
        print("never disconnected")
    except (ConnectionResetError, BrokenPipeError):
        print("disconnected")
