// Constants of sockets: families, types, protocols, flags and options.

/** Address families of socket(2). */
export const AF = { UNIX: 1, INET: 2, INET6: 10, NETLINK: 16, PACKET: 17 } as const;

/** Types of socket(2), and its flags. */
export const SOCK = { STREAM: 1, DGRAM: 2, RAW: 3, SEQPACKET: 5, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;

/** Protocols of socket(2), as levels of setsockopt(2) too. */
export const IPPROTO = { IP: 0, ICMP: 1, TCP: 6, UDP: 17, IPV6: 41, ICMPV6: 58 } as const;

/** Flags of recv(2) and send(2). */
export const MSG = {
  OOB: 1,
  PEEK: 2,
  CTRUNC: 8,
  TRUNC: 0x20,
  DONTWAIT: 0x40,
  ERRQUEUE: 0x2000,
  NOSIGNAL: 0x4000,
  CMSG_CLOEXEC: 0x40000000,
} as const;

/** Level of setsockopt(2) for every socket. */
export const SOL_SOCKET = 1;

/** Control message of unix(7) that passes descriptors. */
export const SCM_RIGHTS = 1;

/** Options at SOL_SOCKET, socket(7). */
export const SO = {
  REUSEADDR: 2,
  ERROR: 4,
  BROADCAST: 6,
  SNDBUF: 7,
  RCVBUF: 8,
  KEEPALIVE: 9,
  OOBINLINE: 10,
  LINGER: 13,
  REUSEPORT: 15,
  PEERCRED: 17,
  RCVLOWAT: 18,
  RCVTIMEO: 20,
  SNDTIMEO: 21,
  BINDTODEVICE: 25,
  RCVBUFFORCE: 33,
  PEEK_OFF: 42,
  MEMINFO: 55,
  BINDTOIFINDEX: 62,
} as const;

/** Options of tcp(7). */
export const TCP = { NODELAY: 1, KEEPIDLE: 4, KEEPINTVL: 5, KEEPCNT: 6, INFO: 11 } as const;

/** Options of ip(7). */
export const IP = {
  TTL: 2,
  PKTINFO: 8,
  RECVERR: 11,
  RECVTTL: 12,
  FREEBIND: 15,
  BIND_ADDRESS_NO_PORT: 24,
  MULTICAST_IF: 32,
  MULTICAST_TTL: 33,
  MULTICAST_LOOP: 34,
  MULTICAST_ALL: 49,
  LOCAL_PORT_RANGE: 51,
} as const;

/** Options of ipv6(7). */
export const IPV6 = {
  UNICAST_HOPS: 16,
  MULTICAST_IF: 17,
  MULTICAST_HOPS: 18,
  MULTICAST_LOOP: 19,
  RECVERR: 25,
  V6ONLY: 26,
  MULTICAST_ALL: 29,
  RECVPKTINFO: 49,
  PKTINFO: 50,
  RECVHOPLIMIT: 51,
  HOPLIMIT: 52,
  FREEBIND: 78,
} as const;

/** Options at the level of both families, for groups: RFC 3678, ip(7). */
export const MCAST = { JOIN_GROUP: 42, MSFILTER: 48 } as const;

/** Options of udp(7). */
export const UDP = { SEGMENT: 103 } as const;

/** Protocols of netlink(7). */
export const NETLINK = { ROUTE: 0, SOCK_DIAG: 4, CONNECTOR: 11 } as const;

/** Level of setsockopt(2) for netlink sockets. */
export const SOL_NETLINK = 270;

/** Options at SOL_NETLINK, netlink(7). */
export const NETLINK_OPTION = { CAP_ACK: 10, EXT_ACK: 11, GET_STRICT_CHK: 12 } as const;

/** Direction of shutdown(2): sending. */
export const SHUT_WR = 1;

/** Request of ioctl(2) for the bytes in a TCP socket that are not acknowledged, tcp(7). */
export const SIOCOUTQ = 0x5411;
/** Request of ioctl(2): whether a TCP socket has been read up to its urgent byte, see tcp(7). */
export const SIOCATMARK = 0x8905;
