// Decodes BTF, the kernel's description of its own types: finds types by name, and the offsets of fields.
//
// The kernel's BTF has more than a hundred thousand types in several megabytes. One pass notes where each type begins;
// everything else is decoded on demand.

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
/** By kind: the number of words after the first three of a type, and that of each member. */
const FIXED = [0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0];
const EACH = [0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3];

/** Returns the number of words of a type, given its second word. */
function sizeOf(info: number): number {
  const kind = info >>> 24 & 0x1f;
  if (kind === 0 || kind >= FIXED.length) throw new RangeError(`BTF has a type of the unknown kind ${kind}`);
  return 3 + FIXED[kind]! + EACH[kind]! * (info & 0xffff);
}

/** Most structures inside each other that are searched for a field; a malformed one could be as deep as there are types. */
const NESTED_MAX = 1000;

/** Bits of the kinds that modify another type: typedef, volatile, const, restrict, type tag. */
const MODIFIERS = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 18;

/** A field of a structure. */
export interface BtfField {
  /** Bytes from the beginning of the structure. */
  readonly offset: number;
  /** Id of the field's type. */
  readonly type: number;
}

/**
 * BTF whose types are referred to by id; 0 is void.
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
  /** The first word of each type by id, up to the one after the last indexed type. */
  #starts: Uint32Array;
  /** How many types are indexed. */
  #known = 0;
  #bytes: Uint8Array;
  #strings: number;

  /**
   * Decodes the header.
   *
   * @param bytes The BTF, little-endian; it is not copied.
   * @throws {RangeError} If it is not BTF, or truncated.
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
      throw new RangeError("BTF is truncated");
    }
    const start = bytes.byteOffset + types;
    const words = start % 4 === 0
      ? new Uint32Array(bytes.buffer, start, length >> 2)
      : new Uint32Array(bytes.slice(types, types + length).buffer);
    this.#words = words;
    this.#starts = new Uint32Array((words.length / 3 | 0) + 2);
  }

  /** The number of types, which is the highest id. */
  get count(): number {
    this.#index(Infinity);
    return this.#known;
  }

  /** Indexes types up to an id. */
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
   * Finds a type by name.
   *
   * @param kind BTF_KIND.*
   * @returns The type's id; 0 if it is missing.
   * @throws {RangeError} If a type has an unknown kind.
   */
  find(name: string, kind: number): number {
    return this.findAll([[name, kind]])[0]!;
  }

  /**
   * Finds types by name, in one pass.
   *
   * @param wanted Name and BTF_KIND.* of each type.
   * @returns The ids in the same order; 0 for a missing type.
   * @throws {RangeError} If a type has an unknown kind.
   */
  findAll(wanted: readonly (readonly [name: string, kind: number])[]): number[] {
    const bytes = this.#bytes;
    const strings = this.#strings;
    const words = this.#words;
    const starts = this.#starts;
    const names = wanted.map(([name]) => encoder.encode(name));
    const ids = wanted.map(() => 0);
    // Most types are of another kind, or their names begin differently.
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
      starts[++id + 1] = at; // saves another pass
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

  /** Returns the string at an offset. */
  #string(at: number): string {
    const start = this.#strings + at;
    const end = this.#bytes.indexOf(0, start);
    return new TextDecoder("latin1").decode(this.#bytes.subarray(start, end));
  }

  /** Returns the first word of a type. */
  #start(id: number): number {
    if (id > this.#known) this.#index(id);
    if (id < 1 || id > this.#known) throw new RangeError(`BTF has no type ${id}`);
    return this.#starts[id]!;
  }

  /**
   * Returns the kind of a type.
   *
   * @returns BTF_KIND.*; 0 for void.
   */
  kind(id: number): number {
    return id === 0 ? 0 : this.#words[this.#start(id) + 1]! >>> 24 & 0x1f;
  }

  /** Returns the name of a type, which may be empty. */
  name(id: number): string {
    return id === 0 ? "void" : this.#string(this.#words[this.#start(id)]!);
  }

  /** Returns the type without typedefs and qualifiers such as `const`. */
  strip(id: number): number {
    for (let i = 0; i < 64; i++) {
      if ((1 << this.kind(id) & MODIFIERS) === 0) return id;
      id = this.#words[this.#start(id) + 2]!;
    }
    throw new RangeError("BTF has a type that refers to itself");
  }

  /**
   * Returns the type that a pointer points to.
   *
   * @returns The type, stripped; 0 for a pointer to void and for a type other than a pointer.
   */
  target(id: number): number {
    const pointer = this.strip(id);
    return this.kind(pointer) === BTF_KIND.PTR ? this.strip(this.#words[this.#start(pointer) + 2]!) : 0;
  }

  /**
   * Returns the type of an array's elements.
   *
   * @returns The type, stripped; 0 for a type other than an array.
   */
  element(id: number): number {
    const array = this.strip(id);
    return this.kind(array) === BTF_KIND.ARRAY ? this.strip(this.#words[this.#start(array) + 3]!) : 0;
  }

  /**
   * Returns the size of a structure, union, integer or enumeration.
   *
   * @returns Bytes; 0 for another type.
   */
  size(id: number): number {
    const stripped = this.strip(id);
    const kind = this.kind(stripped);
    const sized = kind === BTF_KIND.INT || kind === BTF_KIND.STRUCT || kind === BTF_KIND.UNION ||
      kind === BTF_KIND.ENUM || kind === BTF_KIND.ENUM64;
    return sized ? this.#words[this.#start(stripped) + 2]! : 0;
  }

  /**
   * Finds a field of a structure or union, also inside unnamed members.
   *
   * @param path The name of the field, or names joined by dots for fields of fields.
   * @returns The field; undefined if it is missing, or a bit-field.
   */
  field(id: number, path: string): BtfField | undefined {
    let offset = 0;
    let type = id;
    for (const name of path.split(".")) {
      const found = this.#member(this.strip(type), encoder.encode(name), new Set());
      if (!found) return undefined;
      offset += found.offset;
      type = found.type;
    }
    return { offset, type };
  }

  /** Returns whether the string at an offset is a name. */
  #is(at: number, name: Uint8Array): boolean {
    const bytes = this.#bytes;
    const start = this.#strings + at;
    for (let i = 0; i < name.length; i++) if (bytes[start + i] !== name[i]) return false;
    return bytes[start + name.length] === 0;
  }

  /** Finds a member by name. Structures may have each other as unnamed members: `seen` has those that were searched. */
  #member(id: number, name: Uint8Array, seen: Set<number>): BtfField | undefined {
    const kind = this.kind(id);
    if ((kind !== BTF_KIND.STRUCT && kind !== BTF_KIND.UNION) || seen.has(id) || seen.size > NESTED_MAX) {
      return undefined;
    }
    seen.add(id);
    const words = this.#words;
    const start = this.#start(id);
    const info = words[start + 1]!;
    const flagged = info >>> 31 === 1; // the upper byte of an offset is then the size of a bit-field
    const end = start + 3 + 3 * (info & 0xffff);
    for (let at = start + 3; at < end; at += 3) {
      const type = words[at + 1]!;
      const packed = words[at + 2]!;
      const bits = flagged ? packed & 0xffffff : packed;
      if (this.#is(words[at]!, name)) {
        return (flagged && packed >>> 24 !== 0) || bits % 8 !== 0 ? undefined : { offset: bits / 8, type };
      }
      if (this.#bytes[this.#strings + words[at]!] !== 0) continue; // a named member
      const inner = this.#member(this.strip(type), name, seen);
      if (inner) return { offset: bits / 8 + inner.offset, type: inner.type };
    }
    return undefined;
  }

  /**
   * Returns the parameters of a function.
   *
   * @param id A FUNC or FUNC_PROTO, or a pointer to one.
   * @returns The type of each parameter; empty for another type.
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
