// The codec of the bootstrap message, tested with bytes that it has not made.

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type BootstrapMessage,
  BootstrapMessageError,
  decodeBootstrap,
  decodePids,
  type Dialect,
  DIALECTS,
  encodeBootstrap,
  encodePids,
} from "../../mod/nsexec/message.ts";
import { mutate } from "./mutate.ts";
import { test } from "../lib/helpers.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const unhex = (hex: string) =>
  Uint8Array.from(hex.replaceAll(" ", "").match(/../g) ?? [], (pair) => parseInt(pair, 16));

const VECTORS: [name: string, dialect: Dialect, hex: string, message: BootstrapMessage][] = [
  // Both real programs were seen to accept these.
  [
    "the message of the protocol's description",
    "seed",
    "34000000 30f2 0100 01000000 00000000 0800 916a 00000040 1a00 926a 7069643a2f70726f632f73656c662f6e732f706964 00 0000",
    {
      flags: 1,
      sequence: 1,
      attributes: [
        { name: "cloneFlags", value: 0x40000000 },
        { name: "namespaces", value: bytes("pid:/proc/self/ns/pid") },
      ],
    },
  ],
  ["no attribute", "1.2", "1000000030f201000000000000000000", { flags: 1, attributes: [] }],
  ["no attribute, no flag", "1.2", "1000000030f200000000000000000000", { flags: 0, attributes: [] }],
  ["sequence and pid", "1.2", "1000000030f2010304030201feffffff", {
    flags: 0x301,
    sequence: 0x01020304,
    pid: 0xfffffffe,
    attributes: [],
  }],
  ["clone flags", "1.2", "1800000030f2010000000000000000000800916a8000027e", {
    flags: 1,
    attributes: [{ name: "cloneFlags", value: 0x7e020080 }],
  }],
  ["clone flags, all bits", "seed", "1800000030f2010000000000000000000800916affffffff", {
    flags: 1,
    attributes: [{ name: "cloneFlags", value: 0xffffffff }],
  }],
  [
    "namespaces",
    "1.2",
    "3800000030f2010000000000000000002800926a6e65743a2f72756e2f6e65746e732f612c7574733a2f70726f632f372f6e732f75747300",
    { flags: 1, attributes: [{ name: "namespaces", value: bytes("net:/run/netns/a,uts:/proc/7/ns/uts") }] },
  ],
  [
    "uidMap",
    "1.2",
    "3000000030f2010000000000000000001d00936a30203130303020310a31203130303030302036353533360a00000000",
    { flags: 1, attributes: [{ name: "uidMap", value: bytes("0 1000 1\n1 100000 65536\n") }] },
  ],
  ["gidMap", "1.2", "2000000030f2010000000000000000000e00946a30203130303020310a000000", {
    flags: 1,
    attributes: [{ name: "gidMap", value: bytes("0 1000 1\n") }],
  }],
  ["oomScoreAdj", "1.2", "1c00000030f2010000000000000000000900966a2d35303000000000", {
    flags: 1,
    attributes: [{ name: "oomScoreAdj", value: bytes("-500") }],
  }],
  ["uidMapPath", "1.2", "2800000030f2010000000000000000001700986a2f7573722f62696e2f6e65777569646d61700000", {
    flags: 1,
    attributes: [{ name: "uidMapPath", value: bytes("/usr/bin/newuidmap") }],
  }],
  ["gidMapPath", "1.2", "2800000030f2010000000000000000001700996a2f7573722f62696e2f6e65776769646d61700000", {
    flags: 1,
    attributes: [{ name: "gidMapPath", value: bytes("/usr/bin/newgidmap") }],
  }],
  ["setgroup 0", "1.1", "1800000030f2010000000000000000000800956a00000000", {
    flags: 1,
    attributes: [{ name: "setgroup", value: 0 }],
  }],
  ["setgroup 1", "1.1", "1800000030f2010000000000000000000800956a01000000", {
    flags: 1,
    attributes: [{ name: "setgroup", value: 1 }],
  }],
  ["setgroup above the first byte", "1.1", "1800000030f2010000000000000000000800956a00010000", {
    flags: 1,
    attributes: [{ name: "setgroup", value: 256 }],
  }],
  ["rootless 0", "1.2", "1800000030f2010000000000000000000800976a00000000", {
    flags: 1,
    attributes: [{ name: "rootless", value: 0 }],
  }],
  ["rootless 1", "1.2", "1800000030f2010000000000000000000800976a01000000", {
    flags: 1,
    attributes: [{ name: "rootless", value: 1 }],
  }],
  [
    "time offsets",
    "1.2",
    "3c00000030f20100000000000000000029009a6a6d6f6e6f746f6e6963203520300a626f6f7474696d65202d37203939393939393939390a00000000",
    { flags: 1, attributes: [{ name: "timeOffsets", value: bytes("monotonic 5 0\nboottime -7 999999999\n") }] },
  ],
  ["mount sources", "1.1", "2000000030f2010000000000000000000f009a6a2f65746300002f6120620000", {
    flags: 1,
    attributes: [{ name: "mountSources", value: [bytes("/etc"), bytes(""), bytes("/a b")] }],
  }],
  ["no mount source", "1.1", "1400000030f20100000000000000000004009a6a", {
    flags: 1,
    attributes: [{ name: "mountSources", value: [] }],
  }],
  ["text of 0 bytes, padded by 3", "seed", "1800000030f2010000000000000000000500966a00000000", {
    flags: 1,
    attributes: [{ name: "oomScoreAdj", value: bytes("") }],
  }],
  ["text of 1 bytes, padded by 2", "seed", "1800000030f2010000000000000000000600966a78000000", {
    flags: 1,
    attributes: [{ name: "oomScoreAdj", value: bytes("x") }],
  }],
  ["text of 2 bytes, padded by 1", "seed", "1800000030f2010000000000000000000700966a78780000", {
    flags: 1,
    attributes: [{ name: "oomScoreAdj", value: bytes("xx") }],
  }],
  ["text of 3 bytes, padded by 0", "seed", "1800000030f2010000000000000000000800966a78787800", {
    flags: 1,
    attributes: [{ name: "oomScoreAdj", value: bytes("xxx") }],
  }],
  ["bytes that are not UTF-8", "1.2", "1c00000030f2010000000000000000000c00926a6e65743a2fff8000", {
    flags: 1,
    attributes: [{ name: "namespaces", value: new Uint8Array([110, 101, 116, 58, 47, 0xff, 0x80]) }],
  }],
  [
    "everything that runc sends",
    "1.2",
    "9c00000030f2010000000000000000000800916a0000026c1900926a757365723a2f70726f632f392f6e732f75736572000000001700986a2f7573722f62696e2f6e65777569646d617000000e00936a30203130303020310a0000000e00946a30203130303020310a0000001700996a2f7573722f62696e2f6e65776769646d617000000800956a010000000600966a300000000800976a01000000",
    {
      flags: 1,
      attributes: [
        { name: "cloneFlags", value: 0x6c020000 },
        { name: "namespaces", value: bytes("user:/proc/9/ns/user") },
        { name: "uidMapPath", value: bytes("/usr/bin/newuidmap") },
        { name: "uidMap", value: bytes("0 1000 1\n") },
        { name: "gidMap", value: bytes("0 1000 1\n") },
        { name: "gidMapPath", value: bytes("/usr/bin/newgidmap") },
        { name: "setgroup", value: 1 },
        { name: "oomScoreAdj", value: bytes("0") },
        { name: "rootless", value: 1 },
      ],
    },
  ],
  ["the same in another order", "1.2", "2000000030f2010000000000000000000800976a000000000800916a00000000", {
    flags: 1,
    attributes: [{ name: "rootless", value: 0 }, { name: "cloneFlags", value: 0 }],
  }],
];

for (const [name, dialect, hex, message] of VECTORS) {
  test(`decodes and encodes in dialect ${dialect}: ${name}`, () => {
    const wire = unhex(hex);
    const decoded = decodeBootstrap(wire, dialect);
    assertEquals(decoded, { flags: 0, sequence: 0, pid: 0, ...message });
    assertEquals(encodeBootstrap(message, dialect), wire);
    assertEquals(encodeBootstrap(decoded, dialect), wire);
  });
}

test("an attribute that exists in all dialects is the same in all of them", () => {
  const message = { flags: 1, sequence: 0, pid: 0, attributes: [{ name: "rootless", value: 1 }] } as const;
  const [first, ...others] = DIALECTS.map((dialect) => encodeBootstrap(message, dialect));
  for (const other of others) assertEquals(other, first);
});

/** Makes a message of raw attributes with the given lengths. */
function raw(...attributes: [length: number, type: number, data: number[]][]): Uint8Array {
  const body = attributes.flatMap((
    [length, type, data],
  ) => [length & 255, length >> 8, type & 255, type >> 8, ...data]);
  const total = 16 + body.length;
  return new Uint8Array([
    total & 255,
    total >> 8 & 255,
    total >> 16,
    0,
    0x30,
    0xf2,
    1,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    ...body,
  ]);
}

const WRONG: [name: string, message: Uint8Array, error: string, dialect?: Dialect][] = [
  ["no byte", new Uint8Array(0), "invalid netlink header length 0"],
  ["half a header", raw().subarray(0, 8), "invalid netlink header length 8"],
  ["the wrong type", unhex("10000000 31f2 0000 00000000 00000000"), "unexpected msg type 62001"],
  ["an error", unhex("10000000 0200 0000 00000000 00000000"), "failed to read netlink message"],
  ["a length below the header's", unhex("0f000000 30f2 0000 00000000 00000000"), "invalid netlink message length 15"],
  ["a length of 4 GB", unhex("ffffffff 30f2 0000 00000000 00000000"), "invalid netlink message length 4294967295"],
  [
    "more than there is",
    unhex("40000000 30f2 0000 00000000 00000000 08000000"),
    "failed to read netlink payload, 4 != 48",
  ],
  ["bytes behind it", unhex("10000000 30f2 0000 00000000 00000000 00"), "failed to read netlink payload, 1 != 0"],
  ...[0, 1, 2, 3].map((length): [string, Uint8Array, string] => [
    `an attribute of length ${length}`,
    raw([length, 27281, [0, 0, 0, 0]]),
    `attribute 27281 at byte 16 has the length ${length}, less than its own header's`,
  ]),
  ["an attribute past the end", raw([12, 27281, [0, 0, 0, 0]]), "attribute 27281 at byte 16 runs past the end"],
  ["an attribute of 65535 bytes in a short message", raw([65535, 27282, [0]]), "runs past the end"],
  ["an attribute without its padding", raw([6, 27286, [49, 0]]), "runs past the end"],
  ["padding that is not zero", raw([6, 27286, [49, 0, 0, 1]]), "is not padded with zeros"],
  [
    "an attribute twice",
    raw([8, 27281, [0, 0, 0, 0]], [8, 27281, [0, 0, 0, 1]]),
    "attribute 27281 at byte 24 is given twice",
  ],
  ["text without a NUL", raw([8, 27286, [49, 48, 48, 48]]), "does not end with a NUL"],
  ["text without a byte", raw([4, 27286, []]), "does not end with a NUL"],
  ["text with a NUL inside", raw([8, 27286, [49, 0, 48, 0]]), "has a NUL inside"],
  ["a number of two bytes", raw([6, 27281, [0, 0, 0, 0]]), "has 2 bytes of data, not 4"],
  ["a number of no byte", raw([4, 27285, []]), "has 0 bytes of data, not 4"],
  ["a number of eight bytes", raw([12, 27287, [1, 0, 0, 0, 0, 0, 0, 0]]), "has 8 bytes of data, not 4"],
  ["an unknown attribute", raw([8, 27291, [0, 0, 0, 0]]), "unknown netlink message type 27291"],
  ["an attribute of type 0", raw([4, 0, []]), "unknown netlink message type 0"],
  [
    "trailing garbage",
    new Uint8Array([...raw([8, 27281, [0, 0, 0, 0]]).fill(27, 0, 1), 1, 2, 3]),
    "3 bytes follow the last attribute",
  ],
  ["mount sources in the oldest dialect", raw([6, 27290, [47, 0, 0, 0]]), "unknown netlink message type 27290", "seed"],
  ["mount sources without a NUL", raw([8, 27290, [47, 0, 47, 47]]), "does not end with a NUL", "1.1"],
];

for (const [name, message, error, dialect = "1.2"] of WRONG) {
  test(`refuses ${name}`, () => {
    assertThrows(() => decodeBootstrap(message, dialect), BootstrapMessageError, error);
  });
}

test("a message that cannot be encoded is refused", () => {
  const encode = (attributes: BootstrapMessage["attributes"], dialect: Dialect = "1.2") => () =>
    encodeBootstrap({ attributes }, dialect);
  const long = new Uint8Array(65531).fill(47);
  assertThrows(encode([{ name: "namespaces", value: long }]), RangeError, "65532 bytes, more than its length can say");
  assertEquals(encode([{ name: "namespaces", value: long.subarray(1) }])().length, 16 + 65536);
  assertThrows(encode([{ name: "namespaces", value: new Uint8Array([47, 0, 47]) }]), RangeError, "NUL inside");
  assertThrows(encode([{ name: "mountSources", value: [new Uint8Array([0])] }], "1.1"), RangeError, "NUL inside");
  assertThrows(encode([{ name: "rootless", value: 1 }, { name: "rootless", value: 1 }]), RangeError, "twice");
  assertThrows(encode([{ name: "mountSources", value: [] }]), RangeError, "does not exist in dialect 1.2");
  assertThrows(encode([{ name: "timeOffsets", value: bytes("") }], "1.1"), RangeError, "does not exist in dialect 1.1");
  for (const value of [-1, 2 ** 32, 0.5, NaN]) {
    assertThrows(encode([{ name: "cloneFlags", value }]), RangeError, "is not a 32-bit number");
  }
});

test("attributes of the greatest length are decoded, but not with another byte after them (CVE-2021-43784)", () => {
  const long = new Uint8Array(65530).fill(47);
  const message = encodeBootstrap({
    attributes: [
      { name: "cloneFlags", value: 0 },
      { name: "namespaces", value: long },
      { name: "uidMap", value: long },
    ],
  }, "1.2");
  assertEquals(encodeBootstrap(decodeBootstrap(message, "1.2"), "1.2"), message);
  assertThrows(() => decodeBootstrap(new Uint8Array([...message, 0]), "1.2"), BootstrapMessageError, "failed to read");
});

test("a mutated message is refused with a reason, or is another valid message", () => {
  const classes = mutate(20_000, 5);
  const count = [...classes.values()].reduce((a, b) => a + b, 0);
  assertEquals(count, 20_000);
  assert(classes.get("accepted")! > 100);
  assert(classes.size > 10);
});

test("the answer decodes to the pids that were encoded, and nothing else decodes", () => {
  assertEquals(decodePids(encodePids({ stage1: 12, stage2: 4194304 })), { stage1: 12, stage2: 4194304 });
  for (
    const line of [
      "",
      '{"stage1_pid":1,"stage2_pid":2}',
      '{"stage1_pid": 1,"stage2_pid":2}\n',
      '\0{"stage1_pid":1,"stage2_pid":2}\n',
      '{"stage1_pid":0,"stage2_pid":2}\n',
    ]
  ) {
    assertThrows(() => decodePids(line), BootstrapMessageError, "no answer");
  }
});
