// What a command line of pasta(1) asks for, as data.

import type { ForwardingRule } from "../forward/rule.ts";
import type { PortRange } from "../forward/spec.ts";
import type { Family } from "../inet/ip.ts";

/** Addresses, at most one of each family. */
export type PerFamily<T = Uint8Array> = { [F in Family]?: T };

/** Which namespace gets a network. */
export type PastaTarget =
  /** That of a command in new namespaces; an empty list is a shell. */
  | { readonly kind: "command"; readonly command: readonly string[] }
  /** That of a process. */
  | { readonly kind: "pid"; readonly pid: string }
  /** One with a name of ip-netns(8) or a path. */
  | { readonly kind: "netns"; readonly netns: string };

/** What is said, and where. */
export interface PastaLog {
  /** How much: warnings, what is going on, what is done, each frame. */
  readonly level: "quiet" | "info" | "debug" | "trace";
  /** File to log to, or null for stderr. */
  readonly file: string | null;
  /** Greatest size of the file, bytes. */
  readonly size: number;
}

/** What a command line of pasta(1) asks for. */
export interface PastaConfig {
  readonly target: PastaTarget;
  /** User namespace to join, by its path; null for that of the target. */
  readonly userns: string | null;
  /** Whether no user namespace is joined. */
  readonly netnsOnly: boolean;
  /** Whether to stay when the target is gone. */
  readonly stay: boolean;
  /** Whether a command gets a pid namespace. */
  readonly pidns: boolean;
  readonly foreground: boolean;
  readonly pidFile: string | null;
  readonly log: PastaLog;
  readonly pcap: string | null;
  /** Seconds between statistics, or 0. */
  readonly stats: number;
  /** User to become if started by root; null for the usual one. */
  readonly runas: string | null;
  /** Socket for pesto(1). */
  readonly control: string | null;
  /** Descriptor of an interface that is open already. */
  readonly fd: number | null;

  /** Whether to configure the interface. */
  readonly configure: boolean;
  readonly copyRoutes: boolean;
  readonly copyAddresses: boolean;
  readonly version: 4 | 6 | null;
  readonly interface: string | null;
  readonly nsIfname: string | null;
  readonly nsMac: Uint8Array | null;
  readonly mac: Uint8Array | null;
  readonly mtu: number;
  readonly addresses: PerFamily<{ readonly address: Uint8Array; readonly prefix: number | null }>;
  readonly netmask: number | null;
  readonly gateways: PerFamily;
  readonly outbound: PerFamily;
  readonly outboundInterfaces: { readonly 4: string | null; readonly 6: string | null };

  readonly dnsForward: PerFamily;
  readonly dnsHost: PerFamily;
  /** Addresses that stand for the host's loopback; null for the gateways. */
  readonly mapHostLoopback: PerFamily | null;
  readonly mapGuestAddress: PerFamily;

  readonly rules: {
    /** From the host to inside. */
    readonly inbound: readonly ForwardingRule[];
    /** From inside to the host's loopback. */
    readonly outbound: readonly ForwardingRule[];
  };
  readonly freebind: boolean;
  readonly splice: "usual" | "never" | "only";
  readonly toLoopback: boolean;

  /** Protocols that are off. */
  readonly off: ReadonlySet<"tcp" | "udp" | "icmp" | "dhcp" | "dhcpv6" | "ndp" | "ra">;
  /** What clients of DHCP are told; null where nothing was said. */
  readonly dhcp: {
    readonly dns: readonly Uint8Array[] | null;
    readonly search: readonly string[] | null;
    readonly tellDns: boolean;
    readonly tellSearch: boolean;
    readonly hostname: string | null;
    readonly fqdn: string | null;
  };
  /** Lines to be said first, which are no errors. */
  readonly warnings: readonly string[];
}

/** The end of the program before it does anything: an error, or an answer. */
export interface PastaAnswer {
  /** Text for stdout. */
  readonly stdout: string;
  /** Text for stderr. */
  readonly stderr: string;
  /** Exit code. */
  readonly code: number;
}

/** What must be known of the host to read a command line. */
export interface PastaFacts {
  /** What the program was called as. */
  readonly program: string;
  /** The text of --version. */
  readonly version: string;
  /** Whether an interface exists. */
  readonly hasInterface: (name: string) => boolean;
  /** The ports that the kernel gives to programs which ask for any. */
  readonly ephemeral: PortRange;
}
