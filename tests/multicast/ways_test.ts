// Sockets inside get what is sent to the groups that they have joined, and leave them: in every way to serve a namespace.

import { assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { FAMILIES, GroupLab, NEEDS, type Sockets, socketsIn, WAYS } from "./lab.ts";

/** A port that nobody knows. */
const PORT = 20_000 + crypto.getRandomValues(new Uint16Array(1))[0]! % 10_000;

/** Joins, receives and leaves groups that are of one way alone. */
async function joinAndLeave(lab: GroupLab, inside: Sockets, way: string, number: number): Promise<void> {
  const { peer } = lab;
  for (const { family, group: first, host, peer: source } of FAMILIES) {
    const group = `${first}${number}`;
    // Bound before, and after it has joined.
    for (const [name, port, isLate] of [["first", PORT, false], ["second", PORT + 1, true]] as const) {
      const socket = `${name}${family}`;
      await inside.open(socket, family);
      if (!isLate) await inside.bind(socket, family, port);
      await inside.join(socket, group);
      if (isLate) await inside.bind(socket, family, port);
      const [, from, , hops] = await lab.reach(family, group, port, socket, inside);
      assertEquals([from, hops], [source, 1], way);
    }
    // What is sent to the host's address is not for the inside; what comes after it has come when that is looked at.
    const sender = `sender${family}`;
    await peer.send(sender, host, PORT, `direct ${way}`);
    await peer.send(sender, group, PORT, `last ${way}`);
    await inside.untilText(`first${family}`, `last ${way}`);
    assertEquals((await inside.texts(`first${family}`)).includes(`direct ${way}`), false, way);
    for (const name of ["first", "second"]) await inside.leave(`${name}${family}`, group);
    await lab.untilMember(group, false);
  }
}

test("A group is received at whatever port while it is joined, in each way to serve a namespace", NEEDS, async () => {
  const [[first, serve], ...others] = Object.entries(WAYS) as [
    [string, typeof WAYS[string]],
    ...[string, typeof WAYS[string]][],
  ];
  await using lab = await GroupLab.open(serve);
  await joinAndLeave(lab, lab.inside, first, 0);
  for (const [i, [way, serveToo]] of others.entries()) {
    await joinAndLeave(lab, await socketsIn(lab.follow, await serveToo(lab.follow)), way, i + 1);
  }
});
