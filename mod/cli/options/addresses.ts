// Addresses in values of options.

import { AF } from "../../../ffi/net/constants.ts";
import { type NameServer, parseNameServer } from "../../host/resolv_conf.ts";
import { familyOf, parseIp } from "../../inet/ip.ts";
import { parseMac } from "../../inet/mac.ts";
import { zoneProblem } from "../../network/request.ts";
import { badValue } from "./values.ts";

/**
 * An IP address.
 *
 * @param option The option, for errors.
 * @param value The address.
 * @returns Its bytes.
 * @throws {PenneError} If it is not an IP address.
 */
export function parseAddress(option: string, value: string): Uint8Array {
  const address = parseIp(value);
  if (!address) throw badValue(option, value, "it is not an IP address");
  return address;
}

/**
 * The address of a name server, in every form that the C library takes in resolv.conf(5).
 *
 * @example
 * ```ts
 * import { parseServer } from "./addresses.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(parseServer("dns", "fe80::53%eth0").zone, "eth0");
 * assertThrows(() => parseServer("dns", "dns.example"), Error, "it is not an IP address");
 * ```
 *
 * @param option The option, for errors.
 * @param value The address, with or without `%` and an interface.
 * @returns The name server.
 * @throws {PenneError} If it is not an IP address, or the interface cannot be the name of one.
 */
export function parseServer(option: string, value: string): NameServer {
  const server = parseNameServer(value);
  if (!server) throw badValue(option, value, "it is not an IP address");
  const reason = value.includes("%") ? zoneProblem(server.address, server.zone) : null;
  if (reason) throw badValue(option, value, reason);
  return server;
}

/**
 * A MAC address.
 *
 * @param option The option, for errors.
 * @param value The address.
 * @returns Its bytes.
 * @throws {PenneError} If it is not a MAC address.
 */
export function parseMacAddress(option: string, value: string): Uint8Array {
  const mac = parseMac(value);
  if (!mac) throw badValue(option, value, "it is not a MAC address, such as 02:00:00:00:00:01");
  return mac;
}

function prefixLength(option: string, value: string, text: string, min: number, max: number): number {
  const length = /^\d{1,3}$/.test(text) ? Number(text) : NaN;
  if (!(length >= min && length <= max)) {
    throw badValue(option, value, `the prefix length is a number from ${min} to ${max}`);
  }
  return length;
}

/**
 * An IP address with or without a prefix length.
 *
 * @example
 * ```ts
 * import { parsePrefix } from "./addresses.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parsePrefix("exclude", "10.0.0.0/8", 0).prefix, 8);
 * assertEquals(parsePrefix("exclude", "::1", 0).prefix, null);
 * ```
 *
 * @param option The option, for errors.
 * @param value `ADDRESS` or `ADDRESS/LENGTH`.
 * @param min Least length.
 * @returns The address, and the length or null.
 * @throws {PenneError} If it is anything else.
 */
export function parsePrefix(
  option: string,
  value: string,
  min: number,
): { address: Uint8Array; prefix: number | null } {
  const [text, length, ...more] = value.split("/");
  const address = parseIp(text!);
  if (!address || more.length) throw badValue(option, value, "it is not an IP address, with or without /LEN");
  return {
    address,
    prefix: length === undefined ? null : prefixLength(option, value, length, min, address.length * 8),
  };
}

/**
 * A netmask as a prefix length.
 *
 * @example
 * ```ts
 * import { parseNetmask } from "./addresses.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(["24", "255.255.255.0"].map((value) => parseNetmask("netmask", value)), [24, 24]);
 * assertThrows(() => parseNetmask("netmask", "255.0.255.0"), Error, "its bits are not contiguous");
 * ```
 *
 * @param option The option, for errors.
 * @param value A number of bits, or a dotted mask.
 * @returns The number of bits.
 * @throws {PenneError} If it is neither.
 */
export function parseNetmask(option: string, value: string): number {
  if (!value.includes(".") && !value.includes(":")) return prefixLength(option, value, value, 1, 32);
  const mask = parseIp(value);
  if (!mask) throw badValue(option, value, "it is not a netmask");
  if (familyOf(mask) === AF.INET6) throw badValue(option, value, "it is for IPv4; an IPv6 address takes /LEN");
  const bits = Array.from(mask, (byte) => byte.toString(2).padStart(8, "0")).join("");
  if (!/^1+0*$/.test(bits)) throw badValue(option, value, "its bits are not contiguous from the left");
  return bits.lastIndexOf("1") + 1;
}
