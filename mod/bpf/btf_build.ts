// Encodes BTF: the few kinds of types that describe a map.

/** A member of a structure; its offset is in bytes. */
export interface BtfMemberSpec {
  readonly name: string;
  readonly type: number;
  readonly offset: number;
}

/** A type to be encoded; the first one has the id 1. */
export type BtfTypeSpec =
  | { readonly kind: "int"; readonly name: string; readonly size: number }
  | { readonly kind: "pointer"; readonly type: number }
  | { readonly kind: "typedef"; readonly name: string; readonly type: number }
  | { readonly kind: "array"; readonly type: number; readonly index: number; readonly length: number }
  | {
    readonly kind: "struct" | "union";
    readonly name: string;
    readonly size: number;
    readonly members: readonly BtfMemberSpec[];
  };

const KINDS = { int: 1, pointer: 2, array: 3, struct: 4, union: 5, typedef: 8 } as const;

/**
 * Encodes types as BTF.
 *
 * @example
 * ```ts
 * import { buildBtf } from "./btf_build.ts";
 * import { Btf } from "./btf.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(new Btf(buildBtf([{ kind: "int", name: "u32", size: 4 }])).name(1), "u32");
 * ```
 *
 * @param types The types; they refer to each other by id.
 * @returns The BTF, little-endian.
 */
export function buildBtf(types: readonly BtfTypeSpec[]): Uint8Array {
  let strings = "\0";
  const text = (name: string): number => {
    if (name === "") return 0;
    const at = strings.length;
    strings += `${name}\0`;
    return at;
  };
  const words: number[] = [];
  for (const type of types) {
    const info = (count: number) => KINDS[type.kind] << 24 | count;
    switch (type.kind) {
      case "int":
        words.push(text(type.name), info(0), type.size, 8 * type.size);
        break;
      case "pointer":
        words.push(0, info(0), type.type);
        break;
      case "typedef":
        words.push(text(type.name), info(0), type.type);
        break;
      case "array":
        words.push(0, info(0), 0, type.type, type.index, type.length);
        break;
      default:
        words.push(text(type.name), info(type.members.length), type.size);
        for (const { name, type: member, offset } of type.members) words.push(text(name), member, 8 * offset);
    }
  }
  const body = Uint32Array.from(words);
  const tail = new TextEncoder().encode(strings);
  const header = Uint32Array.of(0x1eb9f, 24, 0, body.byteLength, body.byteLength, tail.length);
  const bytes = new Uint8Array(24 + body.byteLength + tail.length);
  bytes.set(new Uint8Array(header.buffer));
  bytes.set(new Uint8Array(body.buffer), 24);
  bytes.set(tail, 24 + body.byteLength);
  return bytes;
}
