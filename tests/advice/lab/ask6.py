# Asks all servers of DHCPv6, and prints the answer and its sender: `DEVICE TRIES MESSAGE`, messages as hexadecimal digits.
import socket
import sys

device, tries, message = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 546))
s.settimeout(1)
for _ in range(tries):
    s.sendto(message, ("ff02::1:2", 547, 0, socket.if_nametoindex(device)))
    try:
        answer, sender = s.recvfrom(65536)
    except socket.timeout:
        continue
    print(answer.hex(), sender[0].split("%")[0], sender[1])
    break
