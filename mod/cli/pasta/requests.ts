// What a command line of pasta(1) asks for, as requests to the rest of penne; pure.

import { AF } from "../../../ffi/net/constants.ts";
import { familyOf } from "../../inet/ip.ts";
import { isInterfaceName, type NetworkRequest } from "../../network/request.ts";
import type { ReachRequest, TellRequest } from "../../network/reach.ts";
import type { PastaConfig, PerFamily } from "../../pasta/request.ts";
import { defined } from "../options/values.ts";
import { PastaError } from "./failure.ts";

/** Smallest MTU that the kernel gives to an interface with IPv4, bytes. */
const MTU_MIN = 68;

/** The addresses of families that are on. */
function addresses(config: PastaConfig, given: PerFamily): Uint8Array[] {
  return Object.values(given).filter((address) => isOn(config, address));
}

function isOn({ version }: PastaConfig, address: Uint8Array): boolean {
  return version === null || (familyOf(address) === AF.INET) === (version === 4);
}

/**
 * The network that is asked for.
 *
 * @example
 * ```ts
 * import { networkOf } from "./requests.ts";
 * import { readPastaCommandLine } from "../../pasta/config.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const facts = { program: "pasta", version: "", hasInterface: () => false, ephemeral: [32768, 60999] } as const;
 * const config = readPastaCommandLine(["-a", "10.0.2.100", "-n", "24", "-a", "fd00::3/48"], facts);
 * assertEquals("target" in config && networkOf(config).addresses?.map(({ prefix }) => prefix), [24, null]);
 * ```
 *
 * @param config What the command line asks for.
 * @returns The request.
 * @throws {PastaError} If the interface cannot have the name.
 */
export function networkOf(config: PastaConfig): NetworkRequest {
  const { version, interface: template, nsIfname, nsMac, mac, mtu, netmask, configure } = config;
  if (nsIfname !== null && (!isInterfaceName(nsIfname) || nsIfname === "lo")) {
    throw new PastaError([
      "TUNSETIFF ioctl on /dev/net/tun failed: Invalid argument",
      "Failed to set up tap device in namespace",
    ]);
  }
  const own = Object.values(config.addresses).filter(({ address }) => isOn(config, address));
  return {
    configure,
    // The prefix of an IPv6 address is 64 bits long, whatever is said.
    addresses: own.map(({ address, prefix }) => ({
      address,
      prefix: address.length === 4 ? prefix ?? netmask : null,
    })),
    gateways: addresses(config, config.gateways),
    mtu: mtu < MTU_MIN ? 0 : mtu,
    copyAddresses: config.copyAddresses,
    copyRoutes: config.copyRoutes,
    ...defined({
      version: version ?? undefined,
      interfaces: template === null ? undefined : [template],
      nsIfname: nsIfname ?? undefined,
      nsMac: nsMac ?? undefined,
      mac: mac ?? undefined,
    }),
  };
}

/** What programs inside are told that configure the interface themselves: of names, only what is asked for. */
function toldOf({ dhcp }: PastaConfig): TellRequest {
  const { tellDns, dns, tellSearch, search, hostname, fqdn } = dhcp;
  return {
    dns: tellDns ? dns ?? "host" : [],
    ...tellSearch ? search && { search } : { search: [] },
    ...defined({ hostname: hostname ?? undefined, fqdn: fqdn ?? undefined }),
  };
}

/**
 * What is to be reached.
 *
 * @param config What the command line asks for.
 * @returns The request.
 */
export function reachOf(config: PastaConfig): ReachRequest {
  const { mapHostLoopback, outboundInterfaces, off } = config;
  const dnsHost = addresses(config, config.dnsHost).map((address) => ({ address, zone: "" }));
  const [if4, if6] = [outboundInterfaces[4], outboundInterfaces[6]];
  const protocols = (["tcp", "udp", "icmp", "ndp", "dhcp", "dhcpv6", "ra"] as const).filter((name) =>
    off.has(name) || name === "ndp" && off.has("icmp")
  );
  return {
    dnsForward: addresses(config, config.dnsForward),
    ...dnsHost.length > 0 && { dnsHost },
    ...mapHostLoopback ? { mapHostLoopback: addresses(config, mapHostLoopback) } : { mapGateway: true },
    mapGuestAddress: addresses(config, config.mapGuestAddress),
    outbound: addresses(config, config.outbound),
    anySource: true,
    outboundInterfaces: { ...if4 !== null && { 4: if4 }, ...if6 !== null && { 6: if6 } },
    ...protocols.length > 0 && { off: protocols },
    tell: toldOf(config),
  };
}
