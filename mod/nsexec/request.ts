// Receives the request of a bootstrap from the init pipe.

import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { read } from "../../ffi/sys/file.ts";
import { type Attribute, bootstrapLength, decodeBootstrap, type Dialect, HEADER_SIZE } from "./message.ts";

/** The request in a message. */
export interface BootstrapRequest {
  /** Namespaces to make, CLONE_NEW*. */
  readonly cloneFlags: number;
  /** Whether setgroups(2) must work in the new user namespace. */
  readonly setgroup: boolean;
  /** Whether the caller is unprivileged. */
  readonly rootless: boolean;
  /** Namespaces to join. */
  readonly namespaces: Uint8Array | null;
  /** Maps of the new user namespace. */
  readonly uidMap: Uint8Array | null;
  readonly gidMap: Uint8Array | null;
  /** The programs that write the maps if stage 0 may not. */
  readonly uidMapPath: Uint8Array | null;
  readonly gidMapPath: Uint8Array | null;
  /** The content of /proc/self/oom_score_adj. */
  readonly oomScoreAdj: Uint8Array | null;
  /** The content of /proc/PID/timens_offsets. */
  readonly timeOffsets: Uint8Array | null;
  /** Paths to open in the new mount namespace. */
  readonly mountSources: readonly Uint8Array[] | null;
}

/**
 * Reads bytes, waiting for them.
 *
 * @param fd The file.
 * @param length The number of bytes.
 * @returns The bytes; fewer only at end of file.
 * @throws {SysError} If it fails.
 */
export function readFully(fd: Fd, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    if (!isReadable(fd, -1)) continue;
    try {
      const n = read(fd, bytes.subarray(at));
      if (n === 0) break;
      at += n;
    } catch (error) {
      if (!(error instanceof SysError) || error.code !== "EAGAIN") throw error;
    }
  }
  return bytes.subarray(0, at);
}

/**
 * Reads the message from the pipe, and not a byte more: the bytes after it are for another reader.
 *
 * @param pipe The pipe.
 * @param dialect The dialect of the protocol.
 * @returns The request.
 * @throws {BootstrapMessageError} If the message is missing or malformed.
 * @throws {SysError} If the pipe cannot be read.
 */
export function receiveRequest(pipe: Fd, dialect: Dialect): BootstrapRequest {
  const header = readFully(pipe, HEADER_SIZE);
  const bytes = new Uint8Array(bootstrapLength(header));
  bytes.set(header);
  const payload = readFully(pipe, bytes.length - HEADER_SIZE);
  bytes.set(payload, HEADER_SIZE);
  const { attributes } = decodeBootstrap(bytes.subarray(0, HEADER_SIZE + payload.length), dialect);
  const find = (name: Attribute["name"]) => attributes.find((attribute) => attribute.name === name)?.value;
  const number = (name: Attribute["name"]) => find(name) as number | undefined ?? 0;
  const text = (name: Attribute["name"]) => find(name) as Uint8Array | undefined ?? null;
  return {
    cloneFlags: number("cloneFlags"),
    // The original reads the first byte of these two alone.
    setgroup: (number("setgroup") & 0xff) !== 0,
    rootless: (number("rootless") & 0xff) !== 0,
    namespaces: text("namespaces"),
    uidMap: text("uidMap"),
    gidMap: text("gidMap"),
    uidMapPath: text("uidMapPath"),
    gidMapPath: text("gidMapPath"),
    oomScoreAdj: text("oomScoreAdj"),
    timeOffsets: text("timeOffsets"),
    mountSources: find("mountSources") as readonly Uint8Array[] | undefined ?? null,
  };
}
