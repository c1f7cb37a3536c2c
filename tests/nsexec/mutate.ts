// Decodes random mutations of bootstrap messages and counts the results. A million: `deno run tests/nsexec/mutate.ts`.

import {
  type BootstrapMessage,
  BootstrapMessageError,
  decodeBootstrap,
  DIALECTS,
  encodeBootstrap,
} from "../../mod/nsexec/message.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

const SEEDS: readonly BootstrapMessage[] = [
  { flags: 1, attributes: [] },
  {
    flags: 1,
    sequence: 7,
    attributes: [
      { name: "cloneFlags", value: 0x6c020000 },
      { name: "namespaces", value: bytes("user:/proc/9/ns/user,net:/run/netns/a") },
      { name: "uidMapPath", value: bytes("/usr/bin/newuidmap") },
      { name: "uidMap", value: bytes("0 1000 1\n1 100000 65536\n") },
      { name: "gidMap", value: bytes("0 1000 1\n") },
      { name: "setgroup", value: 1 },
      { name: "oomScoreAdj", value: bytes("-500") },
      { name: "rootless", value: 0 },
    ],
  },
];

/** Pseudo-random numbers, the same every time (xorshift32). */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Numbers at which a length is likely to be mishandled. */
const EDGES = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 255, 256, 32767, 32768, 65531, 65535];

function mutateOnce(message: Uint8Array, next: (below: number) => number): Uint8Array {
  const at = next(message.length);
  switch (next(7)) {
    case 0: { // a bit
      const result = message.slice();
      result[at]! ^= 1 << next(8);
      return result;
    }
    case 1: { // a byte
      const result = message.slice();
      result[at] = next(256);
      return result;
    }
    case 2: { // a number of 16 bits
      const result = message.slice();
      const edge = EDGES[next(EDGES.length)]!;
      result[at & ~1] = edge & 255;
      if ((at | 1) < result.length) result[at | 1] = edge >> 8;
      return result;
    }
    case 3: // an end
      return message.slice(0, at);
    case 4: { // something more
      const more = Uint8Array.from({ length: 1 + next(40) }, () => next(256));
      return Uint8Array.from([...message, ...more]);
    }
    case 5: { // a part twice
      const end = at + 1 + next(message.length - at);
      return Uint8Array.from([...message.subarray(0, end), ...message.subarray(at)]);
    }
    default: // a part less
      return Uint8Array.from([...message.subarray(0, at), ...message.subarray(at + 1 + next(message.length - at))]);
  }
}

/** Corrects the length in the header, so that the decoder reads on. */
function repair(message: Uint8Array): Uint8Array {
  if (message.length >= 4) new DataView(message.buffer).setUint32(0, message.length, true);
  return message;
}

/**
 * Mutates messages and decodes them.
 *
 * @param count The number of mutations.
 * @param seed The seed of the random numbers.
 * @returns The number of each result: the decoder's words without numbers, or "accepted".
 * @throws {Error} If a decoded message does not encode to the same bytes, or decoding fails in another way.
 */
export function mutate(count: number, seed: number): Map<string, number> {
  const next = random(seed);
  const classes = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const dialect = DIALECTS[next(DIALECTS.length)]!;
    let message: Uint8Array = encodeBootstrap(SEEDS[next(4) === 0 ? 0 : 1]!, dialect);
    for (let n = 1 + next(4); n > 0 && message.length > 0; n--) message = mutateOnce(message, next);
    if (next(4) > 0) message = repair(message);
    let result = "accepted";
    try {
      const again = encodeBootstrap(decodeBootstrap(message, dialect), dialect);
      if (again.length !== message.length || again.some((byte, k) => byte !== message[k])) {
        throw new Error(`what was decoded encodes to something else: ${message}`);
      }
    } catch (error) {
      if (!(error instanceof BootstrapMessageError)) throw error;
      result = error.message.replace(/\d+/g, "N");
    }
    classes.set(result, (classes.get(result) ?? 0) + 1);
  }
  return classes;
}

if (import.meta.main) {
  const count = 1_000_000;
  const start = performance.now();
  const classes = [...mutate(count, 1)].sort(([, a], [, b]) => b - a);
  for (const [name, number] of classes) console.log(`${number}`.padStart(8), name);
  console.log(`${count} mutations in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}
