// Two bare hosts with a few tests: README's commands do their job there, or say in one line why they cannot.

import { assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { describe, Host, type Kind } from "./host.ts";
import { SUITES, Tree } from "./tree.ts";
import { bundle, QUICK, tryHost } from "./try.ts";

const KINDS: readonly Kind[] = [
  { who: "user", device: "closed", container: true },
  { who: "root", device: "open", container: false },
];

test("in a bare Debian 13, as a user and as root, nothing fails", [
  "root",
  "tun",
  "package:bash",
  "package:coreutils",
  "package:git",
  "package:mmdebstrap",
  "package:mount",
  "package:util-linux",
], async (t) => {
  const directory = await Deno.makeTempDir({ prefix: "penne-hosts-" });
  try {
    const repository = await bundle(directory);
    await using tree = await Tree.unpack(SUITES.find(({ name }) => name === "trixie")!);
    for (const kind of KINDS) {
      await t.step(describe(kind), async () => {
        const log = `${directory}/log`;
        await Deno.writeTextFile(log, "");
        const { faults } = await tryHost(await Host.make(tree, kind, log), repository, QUICK);
        assertEquals(faults, [], await Deno.readTextFile(log));
      });
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
