// Sockets inside get what is sent to the groups that they have joined, and leave them: in every way to serve a namespace.

import { assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { FAMILIES, GroupLab, NEEDS, WAYS } from "./lab.ts";

/** A port that nobody knows. */
const PORT = 20_000 + crypto.getRandomValues(new Uint16Array(1))[0]! % 10_000;

for (const [way, serve] of Object.entries(WAYS)) {
  test(`A group is received at whatever port while it is joined: ${way}`, NEEDS, async () => {
    await using lab = await GroupLab.open(serve);
    const { inside, peer } = lab;
    for (const { family, group, host, peer: source } of FAMILIES) {
      // Bound before, and after it has joined.
      for (const [name, port, isLate] of [["first", PORT, false], ["second", PORT + 1, true]] as const) {
        const socket = `${name}${family}`;
        await inside.open(socket, family);
        if (!isLate) await inside.bind(socket, family, port);
        await inside.join(socket, group);
        if (isLate) await inside.bind(socket, family, port);
        const [, from, , hops] = await lab.reach(family, group, port, socket);
        assertEquals([from, hops], [source, 1]);
      }
      // What is sent to the host's address is not for the inside; what comes after it has come when that is looked at.
      const sender = `sender${family}`;
      await peer.send(sender, host, PORT, "direct");
      await peer.send(sender, group, PORT, "last");
      await lab.untilText(`first${family}`, "last");
      assertEquals((await inside.texts(`first${family}`)).includes("direct"), false);
      for (const name of ["first", "second"]) await inside.leave(`${name}${family}`, group);
      await lab.untilMember(group, false);
    }
  });
}
