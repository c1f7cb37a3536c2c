# Asks all servers of DHCPv6, and prints the answer and its sender: `DEVICE TRIES MESSAGE [DHCP]`, messages as hexadecimal
# digits. With a message of DHCP, that one is sent after each, and an answer to it is the end, too.
import select
import socket
import sys
import time

device, tries, message, *then = sys.argv[1:]
ETH_P_IP, UDP = 0x0800, 17
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 546))
sockets = [s]
if then:
    four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    four.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    four.bind(("0.0.0.0", 68))
    # Without an address, the kernel may refuse what comes.
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    packets.bind((device, ETH_P_IP))
    sockets.append(packets)


def heard():
    """Waits for an answer; returns whether there is one."""
    end = time.time() + 1
    while ready := select.select(sockets, [], [], max(0, end - time.time()))[0]:
        if s in ready:
            answer, sender = s.recvfrom(65536)
            print(answer.hex(), sender[0].split("%")[0], sender[1])
            return True
        packet = packets.recv(65536)
        header = (packet[0] & 15) * 4
        if packet[9] == UDP and packet[header : header + 4] == bytes([0, 67, 0, 68]):
            return True
    return False


for _ in range(int(tries)):
    s.sendto(bytes.fromhex(message), ("ff02::1:2", 547, 0, socket.if_nametoindex(device)))
    if then:
        four.sendto(bytes.fromhex(then[0]), ("255.255.255.255", 67))
    if heard():
        break
else:
    sys.exit("nothing is answered")
