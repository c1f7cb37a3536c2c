"""Programs of the tests of --allow: a name server, servers, a capture, and a client that takes steps from its standard input."""
import json, os, select, socket, struct, sys, threading, time


def say(*what):
    os.write(1, (" ".join(map(str, what)) + "\n").encode())


def name_bytes(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part) + b"\0"


def read_name(message, at):
    labels = []
    while message[at]:
        labels.append(message[at + 1:at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(labels), at + 1


TYPES = {"A": 1, "CNAME": 5, "MX": 15, "TXT": 16, "AAAA": 28, "HTTPS": 65, "ANY": 255}


def record(owner, kind, value, ttl):
    if kind == "A":
        data = socket.inet_aton(value)
    elif kind == "AAAA":
        data = socket.inet_pton(socket.AF_INET6, value)
    elif kind == "CNAME":
        data = name_bytes(value)
    else:
        data = bytes([len(value)]) + value.encode()
    return name_bytes(owner) + struct.pack(">HHIH", TYPES[kind], 1, ttl, len(data)) + data


def reply(message, zone, tcp):
    """The answer of the zone: {"name type": [[owner, kind, value, ttl, section], …]}, reread for each question."""
    name, end = read_name(message, 12)
    kind = struct.unpack(">H", message[end:end + 2])[0]
    text = next((key for key, value in TYPES.items() if value == kind), str(kind))
    records = json.load(open(zone)).get(f"{name.lower()} {text}", [])
    flags = 0x8180
    if any(entry[0] == "truncated" for entry in records):
        if not tcp:
            flags, records = flags | 0x0200, []
        records = [entry for entry in records if entry[0] != "truncated"]
    parts = {"answer": [], "additional": []}
    for owner, of, value, ttl, *section in records:
        parts[section[0] if section else "answer"].append(record(owner, of, value, ttl))
    header = message[:2] + struct.pack(">HHHHH", flags, 1, len(parts["answer"]), 0, len(parts["additional"]))
    return header + message[12:end + 4] + b"".join(parts["answer"] + parts["additional"])


def resolver(address, zone, log):
    """Answers questions, and writes each message that it gets to a file in hexadecimal."""
    seen = open(log, "a", buffering=1)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.create_server((address, 53))

    def serve(connection):
        stream = connection.makefile("rb")
        while len(length := stream.read(2)) == 2:
            message = stream.read(struct.unpack(">H", length)[0])
            seen.write(f"tcp {message.hex()}\n")
            answer = reply(message, zone, True)
            connection.sendall(struct.pack(">H", len(answer)) + answer)
        connection.close()

    def accept():
        while True:
            threading.Thread(target=serve, args=(tcp.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    say("ready")
    while True:
        message, sender = udp.recvfrom(65536)
        seen.write(f"udp {message.hex()}\n")
        udp.sendto(reply(message, zone, False), sender)


def servers(*ports):
    """Echoes what comes to TCP and UDP ports of each address."""
    watched = {}
    for port in map(int, ports):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                s = socket.socket(family, kind)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    if kind == socket.SOCK_DGRAM:
                        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                elif kind == socket.SOCK_DGRAM:
                    s.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
                s.bind((any_address, port))
                if kind == socket.SOCK_STREAM:
                    s.listen(64)
                watched[s] = kind
    say("ready")
    connections = set()
    while True:
        for s in select.select([*watched, *connections], [], [])[0]:
            if s in connections:
                try:
                    data = s.recv(65536)
                    s.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    connections.discard(s)
                    s.close()
            elif watched[s] == socket.SOCK_STREAM:
                connections.add(s.accept()[0])
            else:
                data, control, _, sender = s.recvmsg(65536, 256)
                # The answer comes from the address that was asked.
                control = [(level, kind, value) for level, kind, value in control if kind in (8, 50)]
                s.sendmsg([data], control, 0, sender)


def capture(interface, own):
    """Says each IP packet that leaves by an interface: protocol, destination, port."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((interface, 0))
    say("ready")
    while True:
        frame, (_, kind, direction, *_) = s.recvfrom(65536)
        if direction != 4:  # PACKET_OUTGOING
            continue
        ip = frame[14:]
        if kind == 0x0800:
            protocol, to, rest = ip[9], socket.inet_ntop(socket.AF_INET, ip[16:20]), ip[(ip[0] & 15) * 4:]
            if struct.unpack(">H", ip[6:8])[0] & 0x1fff:
                rest = b"\0\0\0\0"
        elif kind == 0x86dd:
            protocol, to, rest = ip[6], socket.inet_ntop(socket.AF_INET6, ip[24:40]), ip[40:]
        else:
            continue
        port = struct.unpack(">H", rest[2:4])[0] if protocol in (6, 17) else rest[0]
        say(protocol, to, port)


held = {}


def address_family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def error_name(error):
    import errno
    return "timeout" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, str(error))


def tcp(address, port, keep=None):
    s = socket.socket(address_family(address), socket.SOCK_STREAM)
    s.settimeout(20)
    try:
        s.connect((address, port))
        s.sendall(b"hello")
        answer = s.recv(100).decode()
        if keep:
            held[keep] = s
        return "ok" if answer == "hello" else f"answer {answer!r}"
    except OSError as error:
        return error_name(error)


def again(keep):
    try:
        held[keep].sendall(b"again")
        return held[keep].recv(100).decode()
    except OSError as error:
        return error_name(error)


def udp(address, port, size=5):
    s = socket.socket(address_family(address), socket.SOCK_DGRAM)
    try:
        s.connect((address, port))
        for tries in range(6):
            s.settimeout(2 + 3 * tries)
            s.send(b"x" * size)
            try:
                return "ok" if len(s.recv(65536)) == size else "other"
            except TimeoutError:
                pass
        return "timeout"
    except OSError as error:
        return error_name(error)


def send(address, port):
    """Sends a datagram to a group or a broadcast address, of which nothing is heard."""
    s = socket.socket(address_family(address), socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.sendto(b"hello", (address, port))
    return "sent"


def question(name, kind="A", ident=7, extra=b"", count=1, klass=1, flags=0x0100, additional=0):
    header = struct.pack(">HHHHHH", ident, flags, count, 0, 0, additional)
    return header + name_bytes(name) + struct.pack(">HH", TYPES[kind], klass) + extra


def outcome(answer, asked=None):
    flags, count = struct.unpack(">H", answer[2:4])[0], struct.unpack(">H", answer[6:8])[0]
    codes = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
    named = answer[4:6] != b"\0\0"
    echo = asked is None or answer[:2] == asked[:2] and (not named or answer[12:].startswith(asked[12:read_name(asked, 12)[1]]))
    return f"{codes.get(flags & 15, flags & 15)} {count}" + (" TC" if flags & 0x200 else "") + ("" if echo else " other")


def dns(server, message, stream=False):
    if stream:
        s = socket.socket(address_family(server), socket.SOCK_STREAM)
        s.settimeout(20)
        try:
            s.connect((server, 53))
            s.sendall(struct.pack(">H", len(message)) + message)
            stream = s.makefile("rb")
            return outcome(stream.read(struct.unpack(">H", stream.read(2))[0]), message)
        except OSError as error:
            return error_name(error)
    s = socket.socket(address_family(server), socket.SOCK_DGRAM)
    try:
        s.connect((server, 53))
        for tries in range(4):
            s.settimeout(5)
            s.send(message)
            try:
                return outcome(s.recv(65536), message)
            except TimeoutError:
                pass
        return "timeout"
    except OSError as error:
        return error_name(error)


def pipelined(server, names):
    """Asks for several names by one connection: all at once, but for the end of the last, which comes later."""
    s = socket.create_connection((server, 53), 20)
    messages = [question(name, ident=index) for index, name in enumerate(names)]
    data = b"".join(struct.pack(">H", len(message)) + message for message in messages)
    s.sendall(data[:-5])
    time.sleep(0.05)
    s.sendall(data[-5:])
    s.shutdown(socket.SHUT_WR)
    stream, found = s.makefile("rb"), {}
    while len(length := stream.read(2)) == 2:
        answer = stream.read(struct.unpack(">H", length)[0])
        found[answer[1]] = outcome(answer)
    return [found.get(index) for index in range(len(names))]


def junk(server):
    """Sends what is no question, many times, by one connection."""
    s = socket.create_connection((server, 53), 20)
    try:
        s.sendall(b"\0" * 60000)
        return "closed" if s.recv(1) == b"" else "answered"
    except ConnectionError:
        return "closed"


def edns(name, options, size=1232):
    """A question with an OPT record that has options."""
    opt = b"\0" + struct.pack(">HHIH", 41, size, 0, len(options)) + options
    return question(name, extra=opt, additional=1)


def send_raw(hexadecimal, address):
    """Sends an IP packet as it is."""
    family = address_family(address)
    s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(bytes.fromhex(hexadecimal), (address, 0))
    return "sent"


STEPS = {
    "tcp": tcp,
    "udp": udp,
    "again": again,
    "send": send,
    "raw": send_raw,
    "pipelined": pipelined,
    "junk": junk,
    "dns": lambda server, name, kind="A", stream=False: dns(server, question(name, kind), stream),
    "two": lambda server, name: dns(server, question(name, extra=name_bytes(name) + b"\0\1\0\1", count=2)),
    "chaos": lambda server, name: dns(server, question(name, klass=3)),
    "edns": lambda server, name, text: dns(server, edns(name, struct.pack(">HH", 65001, len(text)) + text.encode())),
    "trailing": lambda server, name, text: dns(server, question(name, extra=text.encode())),
    "ping": lambda address: os.system(f"ping -c1 -W10 {address} >/dev/null 2>&1") and "lost" or "ok",
}


def client():
    """Takes steps, one a line, and says the outcome of each."""
    say("ready")
    for line in sys.stdin:
        kind, *arguments = json.loads(line)
        try:
            say(json.dumps(STEPS[kind](*arguments)))
        except Exception as error:
            say(json.dumps(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    {"resolver": resolver, "servers": servers, "capture": capture, "client": client}[sys.argv[1]](*sys.argv[2:])
