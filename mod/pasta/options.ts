// The options of pasta(1): names, letters and values, and the text of `pasta --help`.

import type { LongOption } from "./getopt.ts";

/** A row of the table. */
interface Row<Key extends string> extends LongOption<Key> {
  /** What the value is called; it has one if this is given. */
  readonly argument?: string;
  /** What it does, a line; options that are for passt(1) only have none. */
  readonly help?: string;
}

function row<const Key extends string>(
  key: Key,
  short: string,
  argument = "",
  help = "",
  name: string = key,
): Row<Key> {
  return { key, name, value: argument !== "", ...short && { short }, ...argument && { argument }, ...help && { help } };
}

/**
 * All options, in the order in which an ambiguous abbreviation lists them.
 *
 * Options of passt(1) are known, so that they are refused by name.
 */
export const OPTIONS = [
  row("debug", "d", "", "Say what is done, on stderr"),
  row("trace", "", "", "Say more; implies --debug"),
  row("quiet", "q", "", "Say nothing but warnings and errors"),
  row("foreground", "f", "", "Do not go into the background (a command always runs in the foreground)"),
  row("stderr", "e", "", "Accepted, and without effect"),
  row("log-file", "l", "PATH", "Log to a file, which is emptied first, and to nothing else"),
  row("log-size", "", "BYTES", "Greatest size of the log file (default: 1 MiB)"),
  row("stats", "", "SECONDS", "Print statistics as often, in the foreground"),
  row("help", "h", "", "Print this"),
  row("version", "", "", "Print the version"),
  row("pcap", "p", "FILE", "Record the frames of the interface"),
  row("pid", "P", "FILE", "Write the process id to a file once all is ready; it stays"),
  row("mtu", "m", "BYTES", "MTU of the interface (default: 65520; 0: that of the kernel)"),
  row("address", "a", "ADDRESS[/LEN]", "Address inside, one per family (default: the host's)"),
  row("netmask", "n", "MASK", "Netmask or prefix length of the IPv4 address"),
  row("mac-addr", "M", "MAC", "MAC address of every peer (default: 9a:55:9a:55:9a:55)"),
  row("gateway", "g", "ADDRESS", "Gateway, one per family (default: the host's routes)"),
  row("interface", "i", "NAME", "Interface to copy addresses and routes from"),
  row("outbound", "o", "ADDRESS", "Source address on the host, one per family"),
  row("outbound-if4", "", "NAME", "Interface by which IPv4 leaves the host"),
  row("outbound-if6", "", "NAME", "Interface by which IPv6 leaves the host"),
  row("dns", "D", "ADDRESS", "Name server to tell clients of DHCP; none for none; repeatable"),
  row("search", "S", "LIST", "Search domains to tell clients of DHCP; none for none"),
  row("hostname", "H", "NAME", "Host name of a command, and to tell clients of DHCP"),
  row("fqdn", "", "NAME", "Full name to tell clients of DHCP"),
  row("dns-forward", "", "ADDRESS", "Address inside, one per family, that leads to the host's resolver"),
  row("dns-host", "", "ADDRESS", "Resolver to use on the host (default: that of /etc/resolv.conf)"),
  row("map-host-loopback", "", "ADDRESS", "Address inside that leads to the host's loopback (default: the gateway)"),
  row("map-guest-addr", "", "ADDRESS", "Address inside that leads to the host's own address (default: none)"),
  row("host-lo-to-ns-lo", "", "", "Ports that are reached by the host's loopback lead to loopback inside"),
  row("dhcp-dns", "", "", "Tell clients of DHCP the name servers"),
  row("dhcp-search", "", "", "Tell clients of DHCP the search domains"),
  row("no-tcp", "", "", "No TCP"),
  row("no-udp", "", "", "No UDP"),
  row("no-icmp", "", "", "No ICMP"),
  row("no-dhcp", "", "", "No DHCP"),
  row("no-dhcpv6", "", "", "No DHCPv6"),
  row("no-ndp", "", "", "No neighbour discovery"),
  row("no-ra", "", "", "No router advertisements"),
  row("no-splice", "", "", "Ports that are reached by loopback lead to the interface, too"),
  row("splice-only", "", "", "No interface: ports between the loopbacks alone"),
  row("freebind", "", "", "Listen on addresses that the host does not have"),
  row("no-map-gw", "", "", "The gateway does not lead to the host's loopback"),
  row("ipv4-only", "4", "", "IPv4 only"),
  row("ipv6-only", "6", "", "IPv6 only"),
  row("one-off", "1"),
  row("tcp-ports", "t", "SPEC", "TCP ports of the host that lead inside (default: auto)"),
  row("udp-ports", "u", "SPEC", "UDP ports of the host that lead inside (default: auto)"),
  row("tcp-ns", "T", "SPEC", "TCP ports inside that lead to the host's loopback (default: auto)"),
  row("udp-ns", "U", "SPEC", "UDP ports inside that lead to the host's loopback (default: auto)"),
  row("netns", "", "PATH|NAME", "Network namespace to join"),
  row("userns", "", "PATH", "User namespace to join"),
  row("netns-only", "", "", "Join no user namespace"),
  row("no-dhcp-dns", ""),
  row("no-dhcp-search", ""),
  row("no-netns-quit", "", "", "Stay when the namespace's name or process is gone"),
  row("no-pidns", "", "", "A command gets no pid namespace"),
  row("config-net", "", "", "Configure the interface inside, and bring it up"),
  row("no-copy-routes", "", "", "With --config-net: a default route alone"),
  row("no-copy-addrs", "", "", "With --config-net: one address alone"),
  row("ns-ifname", "I", "NAME", "Name of the interface inside (default: that of the host's)"),
  row("ns-mac-addr", "", "MAC", "MAC address of the interface inside (default: random)"),
  row("runas", "", "UID[:GID]|LOGIN[:GROUP]", "User to become if started by root (default: nobody)"),
  row("chroot-fallback", "", "", "Use chroot(2) where pivot_root(2) fails"),
  row("conf-path", "c", "PATH", "Socket by which pesto(1) changes ports"),
  row("fd", "F", "FD", "Descriptor of an interface that is open already"),
  row("socket", "s", "PATH"),
  row("socket", "", "PATH", "", "socket-path"),
  row("vhost-user", ""),
  row("print-capabilities", ""),
  row("repair-path", "", "PATH"),
  row("migrate-exit", ""),
  row("migrate-no-linger", ""),
] as const satisfies readonly LongOption[];

/** What an option is called in the program. */
export type OptionKey = (typeof OPTIONS)[number]["key"];

/**
 * The text of `pasta --help`.
 *
 * @param program What the program was called as.
 * @returns Lines, the last one with its end.
 */
export function usageText(program: string): string {
  const rows: readonly Row<OptionKey>[] = OPTIONS;
  const lines = rows.filter(({ help }) => help).map(({ short, name, argument, help }) => {
    const names = `${short ? `-${short}, ` : "    "}--${name}${argument ? ` ${argument}` : ""}`;
    return names.length < 27 ? `  ${names.padEnd(28)}${help}` : `  ${names}\n${" ".repeat(30)}${help}`;
  });
  return `Usage: ${program} [OPTION]... [COMMAND [ARG]...]
       ${program} [OPTION]... PID
       ${program} [OPTION]... --netns PATH|NAME

Give a network namespace the host's network: that of a COMMAND (default: a
shell) in namespaces of its own, that of a process, or one with a name or path.

${lines.join("\n")}

SPEC is none, or a list of ports: PORT[-PORT][:PORT[-PORT]], ~PORT[-PORT] to
leave some out, all, and auto for those that have a listener on the other side;
in front of it [ADDRESS][%INTERFACE]/ for where to listen.
`;
}
