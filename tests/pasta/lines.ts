// Command lines of pasta(1), the same ones in each run.

/** Values of options, right and wrong ones. Each is of use without a network, and none asks for much time. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  "--mtu": ["1500", "0x500", "0", "65520", "65521", "65522", "abc", "-1", "1e3", "", "02734", "60", "70000", "1279"],
  "--address": [
    ...["10.0.2.100", "fd00::100", "10.0.0.1/24", "10.0.0.1/33", "10.0.0.1/", "::1", "127.0.0.1", "224.0.0.1"],
    ...["0.0.0.0", "::", "ff02::1", "10.0.0", "x", "", "192.0.2.10", "fe80::5", "10.0.0.1/0", "255.255.255.255"],
  ],
  "--netmask": ["24", "255.255.255.0", "255.0.255.0", "33", "0", "x", "", "32", "-1", "255.255.255.256"],
  "--gateway": ["10.0.2.2", "192.0.2.1", "fd00::2", "fe80::1", "127.0.0.1", "0.0.0.0", "::1", "x", "", "ff02::1"],
  "--mac-addr": ["02:00:00:00:00:01", "zz", "", "02:00:00:00:00", "02-00-00-00-00-01", "9a:55:9a:55:9a:55"],
  "--ns-mac-addr": ["02:00:00:00:00:01", "zz", "", "02:00:00:00:00:0g"],
  "--interface": ["dummy0", "nope", "lo", "", "toolonginterfacename"],
  "--ns-ifname": ["eth7", "toolonginterfacename", "x", "123456789012345"],
  "--outbound": ["192.0.2.10", "999.1.1.1", "x", "127.0.0.1", "fd00:9::10", "0.0.0.0", ""],
  "--dns": ["192.0.2.53", "none", "nope", "fd00::53", "", "127.0.0.1"],
  "--search": ["example.org", "none", "a.example b.example"],
  "--dns-forward": ["169.254.1.1", "0.0.0.0", "fd00::3", "x", "", "127.0.0.1", "::"],
  "--dns-host": ["192.0.2.53", "x", "fd00::53", "127.0.0.1", ""],
  "--map-host-loopback": ["192.0.2.1", "none", "x", "fd00::2", "", "0.0.0.0", "127.0.0.1"],
  "--map-guest-addr": ["169.254.1.2", "none", "x", "fc00::2", ""],
  "--hostname": ["box", ""],
  "--fqdn": ["box.example", ""],
  "--runas": ["0", "nosuch", "0:0", "0:nosuch", ""],
  "--log-size": ["1048576", "1", "x", "0x8000", ""],
  "--log-file": ["/dev/null", "/nonexistent/x", ""],
  "--pid": ["/dev/null", "/nonexistent/x", ""],
  "--pcap": ["/nonexistent/x", "/dev/null"],
  "--fd": ["abc", "77", ""],
  "--stats": ["0", "x"],
  "--tcp-ports": [
    ...[
      "none",
      "18080",
      "18080:80",
      "18080-18081:80-81",
      "18080-18081:80",
      "65536",
      "0",
      "x",
      "",
      "18080,18081",
      "80:",
    ],
    ...["127.0.0.1/18080", "::1/18080", "[::1]/18080", "192.0.2.99/18080", "%lo/18080", "%nope/18080", "1.2.3/18080"],
    ...[
      "18080,18080",
      "all,~1-65535",
      "18080-18079",
      ":22",
      "~18080:33",
      "+18080",
      "018080",
      " 18080",
      "18080 ",
      "none,80",
    ],
  ],
  "--udp-ports": ["none", "18080", "18080:53", "127.0.0.1/18080", "x", "18080,", "18080-18090", "::/18080"],
  "--tcp-ns": ["none", "x", "127.0.0.1/80", "65536"],
  "--udp-ns": ["none", "x", "::1/80"],
  "--socket": ["/tmp/x"],
  "--repair-path": ["/tmp/x"],
  "--netns": ["/nonexistent", "nosuch"],
  "--userns": ["/nonexistent", ""],
};

/** Options without a value. */
const SWITCHES = [
  ...[
    "--config-net",
    "--quiet",
    "--debug",
    "--trace",
    "--foreground",
    "--stderr",
    "-4",
    "-6",
    "--ipv4-only",
    "-f",
    "-q",
  ],
  ...[
    "--no-tcp",
    "--no-udp",
    "--no-icmp",
    "--no-dhcp",
    "--no-dhcpv6",
    "--no-ndp",
    "--no-ra",
    "--no-map-gw",
    "--no-splice",
  ],
  ...[
    "--freebind",
    "--host-lo-to-ns-lo",
    "--dhcp-dns",
    "--dhcp-search",
    "--no-dhcp-dns",
    "--no-dhcp-search",
    "--one-off",
    "-1",
  ],
  ...["--netns-only", "--no-netns-quit", "--no-pidns", "--no-copy-routes", "--no-copy-addrs", "--vhost-user"],
  ...[
    "--migrate-exit",
    "--migrate-no-linger",
    "--bogus",
    "-Z",
    "--no",
    "--help=1",
    "--mtu",
    "--conf",
    "--ipv4",
    "--debu",
  ],
  ...[
    "--version",
    "--help",
    "--config-net=1",
    "-qf",
    "-fqx",
    "-m1500",
    "-mx",
    "-a10.0.0.9",
    "-g",
    "--no-",
    "--ns",
  ],
];

/** A number below a limit; the same ones in each run. */
function* numbers(): Generator<number, never, number> {
  let limit = 1;
  for (let x = 20261130;;) {
    x = Math.imul(x, 1103515245) + 12345 >>> 0;
    limit = yield (x >>> 8) % limit;
  }
}

/**
 * Command lines: each value of each option once, each switch once, and combinations of two or three of them.
 *
 * @param combined How many combinations there are.
 */
export function commandLines(combined: number): string[][] {
  const random = numbers();
  random.next(1);
  const pick = <T>(from: readonly T[]) => from[random.next(from.length).value]!;
  const names = Object.keys(VALUES);
  const valued = (name: string, value: string) => random.next(2).value ? [name, value] : [`${name}=${value}`];
  const single = names.flatMap((name) => VALUES[name]!.map((value) => valued(name, value)));
  const some = () => {
    if (random.next(3).value === 0) return [pick(SWITCHES)];
    const name = pick(names);
    return valued(name, pick(VALUES[name]!));
  };
  const lines = [
    ...single,
    ...SWITCHES.map((word) => [word]),
    ...Array.from({ length: combined }, () => Array.from({ length: 2 + random.next(2).value }, some).flat()),
  ];
  return lines;
}
