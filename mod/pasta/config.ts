// What a command line of pasta(1) asks for; pure.
//
// Options are taken in their order, as pasta takes them: the first one that is wrong decides what is said, and what comes
// before it, such as --version, has its effect. Each error is one of pasta's texts, and ends in exit code 1.

import { AF } from "../../ffi/net/constants.ts";
import { addRule, type ForwardingRule, type Protocol, RuleError, type RuleLimits } from "../forward/rule.ts";
import { parsePortSpec, type PortSpec, rulesOf, SpecError } from "../forward/spec.ts";
import { familyOf, parseIp } from "../inet/ip.ts";
import { parseMac } from "../inet/mac.ts";
import { getopt, GetoptError } from "./getopt.ts";
import { type OptionKey, OPTIONS, usageText } from "./options.ts";
import type { PastaAnswer, PastaConfig, PastaFacts, PastaLog, PastaTarget, PerFamily } from "./request.ts";

/** An error in pasta's words. */
class Refusal extends Error {}

const MTU_MAX = 65521;
const MTU_DEFAULT = 65520;
const LOG_SIZE_DEFAULT = 1 << 20;
/** Smallest log file: pasta's, which has five blocks of the C library. */
const LOG_SIZE_MIN = 40960;
/** Greatest length of a path, with the byte behind it, and of the path of a UNIX socket. */
const PATH_MAX = 4096;
const SOCKET_PATH_MAX = 108;
const INTERFACE_MAX = 15;
const HOSTNAME_MAX = 64;
const FQDN_MAX = 253;

/** Options of passt(1), and what is said of them. */
const PASST: Partial<Record<OptionKey, string>> = {
  "socket": "-s is for passt / vhost-user mode only",
  "one-off": "--one-off is for passt mode only",
  "no-dhcp-dns": "--no-dhcp-dns is for passt mode only",
  "no-dhcp-search": "--no-dhcp-search is for passt mode only",
  "vhost-user": "--vhost-user is for passt / vhost-user mode only",
  "repair-path": "--repair-path is for vhost-user mode only",
  "migrate-exit": "--migrate-exit is for vhost-user mode only",
  "migrate-no-linger": "--migrate-no-linger is for vhost-user mode only",
  "print-capabilities": "--print-capabilities is for vhost-user mode only",
};

/** A number in C's notation, strtoul(3) with base 0; null if it is none. */
function parseNumber(text: string): number | null {
  const found = /^\s*\+?(?:(0[xX][0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))$/.exec(text);
  if (!found) return null;
  if (found[2] !== undefined) return parseInt(found[2], 8);
  return Number(found[1] ?? found[3]);
}

/** An address that a host of the network may have; null for others. */
function parseUnicast(text: string, loopback = false): Uint8Array | null {
  const address = parseIp(text);
  if (!address || address.every((byte) => byte === 0)) return null;
  if (address.length === 4) {
    const first = address[0]!;
    return first >= 224 || first === 127 && !loopback ? null : address;
  }
  if (address[0] === 0xff) return null;
  return address[15] === 1 && address.subarray(0, 15).every((byte) => byte === 0) && !loopback ? null : address;
}

/** A netmask, as four bytes or a number of bits; null if it is none. */
function parseNetmask(text: string): number | null {
  if (/^\d+$/.test(text)) return Number(text) <= 32 ? Number(text) : null;
  const mask = parseIp(text);
  if (mask?.length !== 4) return null;
  const bits = [...mask].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return /^1*0*$/.test(bits) ? bits.lastIndexOf("1") + 1 : null;
}

/** Takes options one after the other. */
class Reader {
  readonly #facts: PastaFacts;
  readonly #seen = new Set<OptionKey>();
  readonly #values = new Map<OptionKey, string>();
  readonly #perFamily = new Map<OptionKey, PerFamily>();
  readonly #addresses: PerFamily<{ address: Uint8Array; prefix: number | null }> = {};
  /** Port specifications, in their order. */
  readonly #specs: { key: OptionKey; value: string; spec: PortSpec | null }[] = [];
  readonly #dns: Uint8Array[] = [];
  readonly #search: string[] = [];
  readonly #warnings: string[] = [];
  #mtu = MTU_DEFAULT;
  #netmask: number | null = null;
  #family: 4 | 6 | null = null;
  #level: PastaLog["level"] = "info";

  constructor(facts: PastaFacts) {
    this.#facts = facts;
  }

  /** Takes an address of which there is one per family; null is what cannot be. */
  #take(key: OptionKey, address: Uint8Array | null, refusal: string): void {
    if (!address) throw new Refusal(refusal);
    this.#perFamily.set(key, { ...this.#perFamily.get(key), [familyOf(address)]: address });
  }

  #address(value: string): void {
    const [text = "", length, ...more] = value.split("/");
    const address = more.length || length === "" ? null : parseUnicast(text);
    if (!address) throw new Refusal(`Invalid guest address: ${value}`);
    let prefix: number | null = null;
    if (length !== undefined) {
      prefix = /^\d+$/.test(length) && Number(length) <= address.length * 8 ? Number(length) : null;
      if (prefix === null) throw new Refusal(`Invalid prefix length: ${value}`);
      if (address.length === 4 && this.#netmask !== null) throw new Refusal("Redundant prefix length specification");
    }
    this.#addresses[familyOf(address)] = { address, prefix };
  }

  #ports(key: OptionKey, value: string): void {
    let spec: PortSpec | null;
    try {
      spec = parsePortSpec(value);
    } catch (error) {
      throw error instanceof SpecError ? new Refusal(error.message) : error;
    }
    const short = OPTIONS.find((option) => option.key === key)!.short!;
    if (!spec && this.#specs.some((other) => other.key === key && other.spec)) {
      throw new Refusal(`-${short} none conflicts with previous options`);
    }
    if (spec?.listens && (key === "tcp-ns" || key === "udp-ns")) {
      throw new Refusal(`Listening address not allowed for -${short} ${value}`);
    }
    this.#specs.push({ key, value, spec });
  }

  /** Takes an option. */
  take(key: OptionKey, value: string): void {
    const refused = PASST[key];
    if (refused) throw new Refusal(refused);
    this.#seen.add(key);
    this.#values.set(key, value);
    switch (key) {
      case "debug":
      case "trace":
      case "quiet":
        this.#level = key;
        break;
      case "stderr":
        this.#warnings.push("--stderr will be dropped soon");
        break;
      case "no-copy-routes":
      case "no-copy-addrs":
        this.#warnings.push(`--${key} will be dropped soon`);
        break;
      case "log-size": {
        const size = parseNumber(value);
        if (size === null || size < LOG_SIZE_MIN) throw new Refusal(`Invalid --log-size: ${value}`);
        break;
      }
      case "stats":
        if (!this.#seen.has("foreground")) throw new Refusal("Can't display statistics if not running in foreground");
        break;
      case "pid":
        if (!value || value.length >= PATH_MAX) throw new Refusal(`Invalid PID file: ${value}`);
        break;
      case "pcap":
        if (!value || value.length >= PATH_MAX) throw new Refusal(`Invalid pcap path: ${value}`);
        break;
      case "conf-path":
        if (!value || value.length >= SOCKET_PATH_MAX) throw new Refusal(`Invalid configuration path: ${value}`);
        break;
      case "fd":
        if (parseNumber(value) === null) throw new Refusal(`Invalid --fd: ${value}`);
        break;
      case "mtu": {
        const mtu = /^-\d+$/.test(value) ? 2n ** 64n + BigInt(value) : parseNumber(value);
        if (mtu === null) throw new Refusal(`Invalid MTU: ${value}`);
        if (mtu > MTU_MAX) throw new Refusal(`MTU ${mtu} too large (max ${MTU_MAX})`);
        this.#mtu = Number(mtu);
        break;
      }
      case "address":
        this.#address(value);
        break;
      case "netmask":
        this.#netmask = parseNetmask(value);
        if (this.#netmask === null) throw new Refusal(`Invalid prefix length: ${value}`);
        if (this.#addresses[AF.INET]?.prefix != null) throw new Refusal("Redundant prefix length specification");
        break;
      case "mac-addr":
      case "ns-mac-addr":
        if (!parseMac(value)) throw new Refusal(`Invalid MAC address: ${value}`);
        break;
      case "gateway":
        this.#take(key, parseUnicast(value), `Invalid gateway address: ${value}`);
        break;
      case "interface":
        if (!this.#facts.hasInterface(value)) throw new Refusal(`Invalid interface name ${value}: No such device`);
        break;
      case "ns-ifname":
        if (!value || value.length > INTERFACE_MAX) throw new Refusal(`Invalid interface name: ${value}`);
        break;
      case "outbound":
        this.#take(key, parseUnicast(value, true), `Invalid or redundant outbound address: ${value}`);
        break;
      case "dns": {
        if (value === "none") {
          this.#dns.length = 0;
          break;
        }
        const address = parseUnicast(value, true);
        if (!address) throw new Refusal(`Cannot use DNS address ${value}`);
        this.#dns.push(address);
        break;
      }
      case "search": {
        if (value === "none") this.#search.length = 0;
        else if (!value || value.length > 255) throw new Refusal(`Cannot use DNS search domain ${value}`);
        else this.#search.push(...value.split(" ").filter(Boolean));
        break;
      }
      case "hostname":
        if (value.length > HOSTNAME_MAX) throw new Refusal(`Invalid hostname: ${value}`);
        break;
      case "fqdn":
        if (value.length > FQDN_MAX) throw new Refusal(`Invalid FQDN: ${value}`);
        break;
      case "dns-forward":
        this.#take(key, parseUnicast(value), `Invalid DNS forwarding address: ${value}`);
        break;
      case "dns-host":
        this.#take(key, parseUnicast(value, true), `Invalid host nameserver address: ${value}`);
        break;
      case "map-host-loopback":
      case "map-guest-addr":
        if (value === "none") this.#perFamily.set(key, {});
        else this.#take(key, parseUnicast(value), `Invalid address to remap to host: ${value}`);
        break;
      case "no-map-gw":
        this.#perFamily.set("map-host-loopback", {});
        break;
      case "ipv4-only":
      case "ipv6-only":
        this.#family = key === "ipv4-only" ? 4 : 6;
        break;
      case "tcp-ports":
      case "udp-ports":
      case "tcp-ns":
      case "udp-ns":
        this.#ports(key, value);
        break;
      case "userns":
        if (!value) throw new Refusal(`Invalid userns: ${value}`);
        this.#seen.delete("netns-only");
        break;
      case "netns-only":
        this.#values.delete("userns");
        break;
    }
  }

  #target(operands: readonly string[]): PastaTarget {
    const netns = this.#values.get("netns");
    if (netns !== undefined) {
      if (operands.length > 0) throw new Refusal("Both --netns and PID or command given");
      return { kind: "netns", netns };
    }
    const [only = ""] = operands;
    if (operands.length !== 1 || !/^\d+$/.test(only)) return { kind: "command", command: operands };
    if (Number(only) > 2 ** 31 - 1) throw new Refusal(`Invalid PID ${only}`);
    return { kind: "pid", pid: only };
  }

  /** The rules of two of the options: for TCP, and for UDP. */
  #rules(keys: readonly (readonly [OptionKey, Protocol])[], inside: boolean, limits: RuleLimits): ForwardingRule[] {
    const rules: ForwardingRule[] = [];
    for (const [key, protocol] of keys) {
      const given = this.#specs.filter((one) => one.key === key);
      // Where nothing is said, ports follow their listeners, unless the protocol is off.
      const usual = limits.protocols[protocol] && !given.length ? [parsePortSpec("auto")] : [];
      for (const spec of [...usual, ...given.map((one) => one.spec)]) {
        if (!spec) continue;
        const from = inside ? { ...spec, interface: "lo" } : spec;
        try {
          for (const rule of rulesOf(from, protocol, this.#facts.ephemeral)) addRule(rules, rule, limits);
        } catch (error) {
          throw error instanceof RuleError ? new Refusal(error.message) : error;
        }
      }
    }
    return rules;
  }

  /** What is asked for in all, with the words after the options. */
  finish(operands: readonly string[]): PastaConfig {
    const has = (key: OptionKey) => this.#seen.has(key);
    const value = (key: OptionKey) => this.#values.get(key) ?? null;
    const perFamily = (key: OptionKey) => this.#perFamily.get(key) ?? {};
    for (const key of ["host-lo-to-ns-lo", "splice-only"] as const) {
      if (has(key) && has("no-splice")) throw new Refusal(`--${key} is incompatible with --no-splice`);
    }
    for (const key of ["no-copy-routes", "no-copy-addrs"] as const) {
      if (has(key) && !has("config-net")) throw new Refusal(`--${key} needs --config-net`);
    }
    const target = this.#target(operands);
    if (has("no-pidns") && target.kind !== "command") {
      throw new Refusal("--no-pidns is incompatible with PID or --netns");
    }
    const off = (["tcp", "udp", "icmp", "dhcp", "dhcpv6", "ndp", "ra"] as const).filter((name) => has(`no-${name}`));
    const limits: RuleLimits = {
      families: { [AF.INET]: this.#family !== 6, [AF.INET6]: this.#family !== 4 },
      protocols: { TCP: !has("no-tcp"), UDP: !has("no-udp") },
    };
    const macOf = (key: OptionKey) => has(key) ? parseMac(value(key)!) : null;
    const warnings = [...this.#warnings];
    if (this.#mtu !== 0 && this.#mtu < 1280) {
      if (this.#mtu < 68) warnings.push(`MTU ${this.#mtu} is too small for IPv4 (minimum 68)`);
      warnings.push(`MTU ${this.#mtu} is too small for IPv6 (minimum 1280)`);
    }
    return {
      target,
      userns: value("userns"),
      netnsOnly: has("netns-only"),
      stay: has("no-netns-quit"),
      pidns: !has("no-pidns"),
      foreground: has("foreground"),
      pidFile: value("pid"),
      log: {
        level: this.#level,
        file: value("log-file"),
        size: parseNumber(value("log-size") ?? "") ?? LOG_SIZE_DEFAULT,
      },
      pcap: value("pcap"),
      stats: parseNumber(value("stats") ?? "") ?? 0,
      runas: value("runas"),
      control: value("conf-path"),
      fd: parseNumber(value("fd") ?? ""),
      configure: has("config-net"),
      copyRoutes: !has("no-copy-routes"),
      copyAddresses: !has("no-copy-addrs"),
      version: this.#family,
      interface: value("interface"),
      nsIfname: value("ns-ifname"),
      nsMac: macOf("ns-mac-addr"),
      mac: macOf("mac-addr"),
      mtu: this.#mtu,
      addresses: this.#addresses,
      netmask: this.#netmask,
      gateways: perFamily("gateway"),
      outbound: perFamily("outbound"),
      outboundInterfaces: { 4: value("outbound-if4"), 6: value("outbound-if6") },
      dnsForward: perFamily("dns-forward"),
      dnsHost: perFamily("dns-host"),
      mapHostLoopback: this.#perFamily.get("map-host-loopback") ?? null,
      mapGuestAddress: perFamily("map-guest-addr"),
      rules: {
        inbound: this.#rules([["tcp-ports", "TCP"], ["udp-ports", "UDP"]], false, limits),
        outbound: this.#rules([["tcp-ns", "TCP"], ["udp-ns", "UDP"]], true, limits),
      },
      freebind: has("freebind"),
      splice: has("splice-only") ? "only" : has("no-splice") ? "never" : "usual",
      toLoopback: has("host-lo-to-ns-lo") || has("splice-only"),
      off: new Set(off),
      dhcp: {
        dns: has("dns") ? this.#dns : null,
        search: has("search") ? this.#search : null,
        tellDns: has("dhcp-dns"),
        tellSearch: has("dhcp-search"),
        hostname: value("hostname") || null,
        fqdn: value("fqdn") || null,
      },
      warnings,
    };
  }
}

/**
 * Reads a command line of pasta(1).
 *
 * @example
 * ```ts
 * import { readPastaCommandLine } from "./config.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const facts = { program: "pasta", version: "pasta 1\n", hasInterface: () => false, ephemeral: [32768, 60999] } as const;
 * const config = readPastaCommandLine(["--config-net", "-t8080:80", "--netns", "blue"], facts);
 * assertEquals("target" in config && config.target, { kind: "netns", netns: "blue" });
 * assertEquals(readPastaCommandLine(["-m", "x"], facts), { stdout: "", stderr: "Invalid MTU: x\n", code: 1 });
 * ```
 *
 * @param args The arguments, without the program's name.
 * @param facts What must be known of the host.
 * @returns What is asked for, or the end of the program.
 */
export function readPastaCommandLine(args: readonly string[], facts: PastaFacts): PastaConfig | PastaAnswer {
  const reader = new Reader(facts);
  const options = getopt(args, OPTIONS);
  try {
    for (;;) {
      const { done, value: given } = options.next();
      if (done) return reader.finish(given);
      if (given.key === "help") return { stdout: usageText(facts.program), stderr: "", code: 0 };
      if (given.key === "version") return { stdout: facts.version, stderr: "", code: 0 };
      reader.take(given.key, given.value ?? "");
    }
  } catch (error) {
    if (error instanceof Refusal) return { stdout: "", stderr: `${error.message}\n`, code: 1 };
    if (!(error instanceof GetoptError)) throw error;
    return { stdout: "", stderr: `${facts.program}: ${error.message}\n${usageText(facts.program)}`, code: 1 };
  }
}
