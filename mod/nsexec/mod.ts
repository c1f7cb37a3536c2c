/**
 * The message by which runc tells its bootstrap which namespaces to join and to make; a pure codec.
 *
 * @example
 * ```ts
 * import { decodeBootstrap, encodeBootstrap } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const attributes = [{ name: "cloneFlags", value: 0x4000000 }] as const;
 * assertEquals(decodeBootstrap(encodeBootstrap({ attributes }, "1.2"), "1.2").attributes, attributes);
 * ```
 *
 * @module
 */

export {
  type Attribute,
  bootstrapLength,
  type BootstrapMessage,
  BootstrapMessageError,
  type BootstrapPids,
  decodeBootstrap,
  decodePids,
  type Dialect,
  encodeBootstrap,
  encodePids,
  type ListAttribute,
  type NumberAttribute,
  type TextAttribute,
} from "./message.ts";
