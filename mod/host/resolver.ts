// The host's name servers, as /etc/resolv.conf names them at this moment.

import { HostFile } from "./host_file.ts";
import { DEFAULT_SERVER, type NameServer, parseResolvConf } from "./resolv_conf.ts";

/** The configuration file of the resolver. */
export const RESOLV_CONF = "/etc/resolv.conf";
/** Milliseconds for which a file that names no server any more may be one that is being written. */
const GRACE = 1000;
/** How many bytes become characters in one step. */
const PART = 4096;

/**
 * Bytes as a text with a character for each.
 *
 * @param bytes The bytes.
 * @returns The text, as the codec takes it.
 */
export function textOf(bytes: Uint8Array): string {
  const parts: string[] = [];
  for (let at = 0; at < bytes.length; at += PART) parts.push(String.fromCharCode(...bytes.subarray(at, at + PART)));
  return parts.join("");
}

/**
 * A text with a character for each byte as those bytes.
 *
 * @param text The text, as the codec makes it.
 * @returns The bytes.
 */
export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/**
 * The host's name servers. The file is looked at whenever they are asked for, as by the C library, so nothing has to be
 * watched.
 *
 * @example
 * ```ts
 * import { HostResolver } from "./resolver.ts";
 * import { formatNameServer } from "./resolv_conf.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const directory = Deno.makeTempDirSync();
 * const resolver = new HostResolver(() => {}, `${directory}/resolv.conf`);
 * assertEquals(resolver.nameservers.map(formatNameServer), ["127.0.0.1"]);
 * Deno.writeTextFileSync(`${directory}/resolv.conf`, "nameserver fe80::1%2\n");
 * assertEquals(resolver.nameservers.map(formatNameServer), ["fe80::1%2"]);
 * Deno.removeSync(directory, { recursive: true });
 * ```
 */
export class HostResolver {
  readonly #file: HostFile;
  readonly #onWarning: (message: string) => void;
  #servers: readonly NameServer[] = [];
  #search: readonly string[] = [];
  /** Whether the file named none when it was last read, and since when; 0 if it named some. */
  #emptySince = 0;
  #warned = "";

  /**
   * @param onWarning Called if the file cannot be read.
   * @param path The file.
   */
  constructor(onWarning: (message: string) => void, path: string = RESOLV_CONF) {
    this.#file = new HostFile(path);
    this.#onWarning = onWarning;
  }

  /** Whether the file names no server, so that the one of this machine is asked. */
  get isDefault(): boolean {
    return this.nameservers[0] === DEFAULT_SERVER;
  }

  /**
   * The name servers in the order in which they are asked: those of the file, or the one of this machine if it names none,
   * is missing or cannot be read.
   */
  get nameservers(): readonly NameServer[] {
    if (this.#file.refresh()) this.#read();
    // Kept for a moment: whoever rewrites the file in place, or removes it first, is not ready yet.
    if (this.#emptySince && performance.now() - this.#emptySince > GRACE) this.#servers = [DEFAULT_SERVER];
    return this.#servers.length > 0 ? this.#servers : [DEFAULT_SERVER];
  }

  /** The domains that are appended to short names. */
  get search(): readonly string[] {
    if (this.#file.refresh()) this.#read();
    return this.#search;
  }

  #read(): void {
    const { path, content, error } = this.#file;
    const { nameservers, search } = parseResolvConf(textOf(content));
    this.#search = search;
    if (nameservers.length > 0) [this.#servers, this.#emptySince] = [nameservers, 0];
    else this.#emptySince ||= performance.now();
    const code = error?.code ?? "";
    if (error && code !== "ENOENT" && code !== this.#warned) {
      const asks = "as for the C library, the name server of this machine (127.0.0.1) is the one to ask";
      this.#onWarning(`cannot read ${path}: ${error.reason} (${code}); ${asks}`);
    }
    this.#warned = code;
  }
}
