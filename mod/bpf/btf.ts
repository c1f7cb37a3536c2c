// Reads BTF, the kernel's description of its own types: where a field of a structure is, and which types there are.
//
// The kernel's own has more than a hundred thousand types and some megabytes. One pass notes where each begins; nothing
// else is taken apart before it is asked for.

/** Kinds of types, `BTF_KIND_*`. */
export const BTF_KIND = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const;

const MAGIC = 0xeb9f;
const encoder = new TextEncoder();
/** Words that follow the three of a type: a number of them, and a number for each of its members. */
const FIXED = [0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0];
const EACH = [0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3];

/** Words of a type, from its second one. */
function sizeOf(info: number): number {
  const kind = info >>> 24 & 0x1f;
  if (kind === 0 || kind >= FIXED.length) throw new RangeError(`BTF has a type of kind ${kind}, which is not known`);
  return 3 + FIXED[kind]! + EACH[kind]! * (info & 0xffff);
}

/** A type that stands for another one: typedef, volatile, const, restrict, type tag. */
const MODIFIERS = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 18;

/** A field of a structure. */
export interface BtfField {
  /** Bytes from the structure's beginning. */
  readonly offset: number;
  /** Id of its type. */
  readonly type: number;
}

/**
 * A BTF; types are known by their ids.
 *
 * @example
 * ```ts
 * import { Btf, BTF_KIND } from "./btf.ts";
 * import { buildBtf } from "./btf_build.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const btf = new Btf(buildBtf([
 *   { kind: "int", name: "int", size: 4 }, // 1
 *   { kind: "struct", name: "point", size: 8, members: [{ name: "x", type: 1, offset: 0 }, { name: "y", type: 1, offset: 4 }] },
 * ]));
 * const point = btf.find("point", BTF_KIND.STRUCT);
 * assertEquals(point, 2);
 * assertEquals(btf.field(point, "y"), { offset: 4, type: 1 });
 * assertEquals(btf.field(point, "z"), undefined);
 * ```
 */
export class Btf {
  #words: Uint32Array;
  /** By id; of the one after the last that is known too. */
  #starts: Uint32Array;
  /** How many of them are known already. */
  #known = 0;
  #bytes: Uint8Array;
  #strings: number;

  /**
   * Looks at the header.
   *
   * @param bytes The whole, little-endian; it is kept.
   * @throws {RangeError} If it is none.
   */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < 24 || view.getUint16(0, true) !== MAGIC) throw new RangeError("This is not BTF");
    const header = view.getUint32(4, true);
    const types = header + view.getUint32(8, true);
    const length = view.getUint32(12, true);
    this.#strings = header + view.getUint32(16, true);
    const stringsLength = view.getUint32(20, true);
    this.#bytes = bytes;
    if (types + length > bytes.length || this.#strings + stringsLength > bytes.length) {
      throw new RangeError("BTF is cut off");
    }
    const start = bytes.byteOffset + types;
    const words = start % 4 === 0
      ? new Uint32Array(bytes.buffer, start, length >> 2)
      : new Uint32Array(bytes.slice(types, types + length).buffer);
    this.#words = words;
    this.#starts = new Uint32Array((words.length / 3 | 0) + 2);
  }

  /** How many types there are; their ids begin with 1. */
  get count(): number {
    this.#index(Infinity);
    return this.#known;
  }

  /** Notes where types begin, up to one. */
  #index(last: number): void {
    const words = this.#words;
    const starts = this.#starts;
    const end = words.length - 2;
    let id = this.#known;
    let at = starts[id + 1]!;
    while (id < last && at < end) {
      id++;
      at += sizeOf(words[at + 1]!);
      starts[id + 1] = at;
    }
    this.#known = id;
  }

  /**
   * A type by its name.
   *
   * @param name The name.
   * @param kind BTF_KIND.*
   * @returns Its id; 0 if there is none.
   * @throws {RangeError} If there is a type of a kind that is not known.
   */
  find(name: string, kind: number): number {
    return this.findAll([[name, kind]])[0]!;
  }

  /**
   * Types by their names, in one pass through all of them.
   *
   * @param wanted Name and BTF_KIND.* of each.
   * @returns Their ids in the same order; 0 for one that there is not.
   * @throws {RangeError} If there is a type of a kind that is not known.
   */
  findAll(wanted: readonly (readonly [name: string, kind: number])[]): number[] {
    const bytes = this.#bytes;
    const strings = this.#strings;
    const words = this.#words;
    const starts = this.#starts;
    const names = wanted.map(([name]) => encoder.encode(name));
    const ids = wanted.map(() => 0);
    // Most types are neither of a kind that is wanted, nor does their name begin as one that is.
    const kinds = wanted.reduce((mask, [, kind]) => mask | 1 << kind, 0);
    const begins = new Uint8Array(1 << 16);
    for (const [first = 0, second = 0] of names) begins[first << 8 | second] = 1;
    const end = words.length - 2;
    let left = wanted.length;
    let id = 0;
    for (let at = 0; at < end && left > 0;) {
      const info = words[at + 1]!;
      const kind = info >>> 24 & 0x1f;
      const name = words[at]!;
      const first = strings + name;
      at += sizeOf(info);
      starts[++id + 1] = at; // what has been gone past need not be so again
      if ((kinds >>> kind & 1) === 0 || begins[bytes[first]! << 8 | bytes[first + 1]!] === 0) continue;
      for (let i = 0; i < ids.length; i++) {
        if (ids[i] !== 0 || wanted[i]![1] !== kind || !this.#is(name, names[i]!)) continue;
        ids[i] = id;
        left--;
      }
    }
    if (id > this.#known) this.#known = id;
    return ids;
  }

  /** The string that begins there. */
  #string(at: number): string {
    const start = this.#strings + at;
    const end = this.#bytes.indexOf(0, start);
    return new TextDecoder("latin1").decode(this.#bytes.subarray(start, end));
  }

  /** Where a type begins, in words. */
  #start(id: number): number {
    if (id > this.#known) this.#index(id);
    if (id < 1 || id > this.#known) throw new RangeError(`BTF has no type ${id}`);
    return this.#starts[id]!;
  }

  /**
   * The kind of a type.
   *
   * @param id The type; 0 is void.
   * @returns BTF_KIND.*; 0 for void.
   */
  kind(id: number): number {
    return id === 0 ? 0 : this.#words[this.#start(id) + 1]! >>> 24 & 0x1f;
  }

  /**
   * The name of a type.
   *
   * @param id The type.
   * @returns Its name, perhaps empty.
   */
  name(id: number): string {
    return id === 0 ? "void" : this.#string(this.#words[this.#start(id)]!);
  }

  /**
   * The type behind typedefs, `const` and the like.
   *
   * @param id The type.
   * @returns What it stands for; itself if nothing else.
   */
  strip(id: number): number {
    for (let i = 0; i < 64; i++) {
      if ((1 << this.kind(id) & MODIFIERS) === 0) return id;
      id = this.#words[this.#start(id) + 2]!;
    }
    throw new RangeError("BTF has a type that stands for itself");
  }

  /**
   * What a pointer points to.
   *
   * @param id The pointer's type.
   * @returns The type pointed to, stripped; 0 if it is void, or if this is no pointer.
   */
  target(id: number): number {
    const pointer = this.strip(id);
    return this.kind(pointer) === BTF_KIND.PTR ? this.strip(this.#words[this.#start(pointer) + 2]!) : 0;
  }

  /**
   * What an array consists of.
   *
   * @param id The array's type.
   * @returns The type of its elements, stripped; 0 if this is no array.
   */
  element(id: number): number {
    const array = this.strip(id);
    return this.kind(array) === BTF_KIND.ARRAY ? this.strip(this.#words[this.#start(array) + 3]!) : 0;
  }

  /**
   * Size of a structure, union, integer or enumeration.
   *
   * @param id The type.
   * @returns Bytes; 0 for others.
   */
  size(id: number): number {
    const stripped = this.strip(id);
    const kind = this.kind(stripped);
    const sized = kind === BTF_KIND.INT || kind === BTF_KIND.STRUCT || kind === BTF_KIND.UNION ||
      kind === BTF_KIND.ENUM || kind === BTF_KIND.ENUM64;
    return sized ? this.#words[this.#start(stripped) + 2]! : 0;
  }

  /**
   * Where a field is.
   *
   * Members without a name are looked through, whether their type has one or not.
   *
   * @param id The structure or union, or something that stands for it.
   * @param path Name of the field, or names joined by dots for fields of fields.
   * @returns The field, or undefined if there is none such, or if it is made of single bits.
   */
  field(id: number, path: string): BtfField | undefined {
    let offset = 0;
    let type = id;
    for (const name of path.split(".")) {
      const found = this.#member(this.strip(type), encoder.encode(name), 0);
      if (!found) return undefined;
      offset += found.offset;
      type = found.type;
    }
    return { offset, type };
  }

  /** Whether the string that begins there is this one. */
  #is(at: number, name: Uint8Array): boolean {
    const bytes = this.#bytes;
    const start = this.#strings + at;
    for (let i = 0; i < name.length; i++) if (bytes[start + i] !== name[i]) return false;
    return bytes[start + name.length] === 0;
  }

  /** A member by its name. */
  #member(id: number, name: Uint8Array, depth: number): BtfField | undefined {
    const kind = this.kind(id);
    if ((kind !== BTF_KIND.STRUCT && kind !== BTF_KIND.UNION) || depth > 16) return undefined;
    const words = this.#words;
    const start = this.#start(id);
    const info = words[start + 1]!;
    const flagged = info >>> 31 === 1; // offsets then have the size of a bit-field in their upper byte
    const end = start + 3 + 3 * (info & 0xffff);
    for (let at = start + 3; at < end; at += 3) {
      const type = words[at + 1]!;
      const packed = words[at + 2]!;
      const bits = flagged ? packed & 0xffffff : packed;
      if (this.#is(words[at]!, name)) {
        return (flagged && packed >>> 24 !== 0) || bits % 8 !== 0 ? undefined : { offset: bits / 8, type };
      }
      if (this.#bytes[this.#strings + words[at]!] !== 0) continue; // it has a name
      const inner = this.#member(this.strip(type), name, depth + 1);
      if (inner) return { offset: bits / 8 + inner.offset, type: inner.type };
    }
    return undefined;
  }

  /**
   * The parameters of a function, or of what a pointer or typedef to one stands for.
   *
   * @param id A FUNC, FUNC_PROTO, or a pointer to one.
   * @returns The type of each; none for what is no function.
   */
  parameters(id: number): number[] {
    let type = this.strip(id);
    if (this.kind(type) === BTF_KIND.PTR) type = this.target(type);
    if (this.kind(type) === BTF_KIND.FUNC) type = this.#words[this.#start(type) + 2]!;
    if (this.kind(type) !== BTF_KIND.FUNC_PROTO) return [];
    const start = this.#start(type);
    const count = this.#words[start + 1]! & 0xffff;
    return Array.from({ length: count }, (_, i) => this.#words[start + 4 + 2 * i]!);
  }
}
