# A name server: answers every question for an address with 192.0.2.1, on the addresses given.
import select, socket, sys

sockets = []
for word in sys.argv[1:]:
    family, _, _, _, address = socket.getaddrinfo(word, 53, type=socket.SOCK_DGRAM)[0]
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.bind(address)
    sockets.append(one)
print("ready", flush=True)
while True:
    for one in select.select(sockets, [], [])[0]:
        try:
            question, peer = one.recvfrom(4096)
            end = 12
            while question[end]:
                end += question[end] + 1
            wants = question[end + 2] == 1
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\1" if wants else b""
            head = question[:2] + b"\x81\x80\0\1\0" + bytes([wants]) + b"\0\0\0\0"
            one.sendto(head + question[12:end + 5] + answer, peer)
        except OSError:
            pass
