// Broadcasts, to all of the link and to all of a network: those that a namespace sends, and those that it gets.

import { assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { assertOnce, GroupLab, NEEDS } from "./lab.ts";

/** Ports of who gets broadcasts, of who sends them, of both, and one that is open. */
const [TO, FROM, BOTH, OPEN] = [22_001, 22_002, 22_003, 22_004];

test(
  "Broadcasts go out, answers come in, and so do broadcasts at ports that are open or speak themselves",
  NEEDS,
  async () => {
    await using lab = await GroupLab.open((follow) => follow.run(false, "--udp-ports", `${OPEN}`));
    const { host, inside, peer } = lab;
    const bound = async (where: typeof inside, name: string, port: number, address?: string) => {
      await where.open(name, 4);
      await where.bind(name, 4, port, address);
    };
    await bound(host, "all", TO);
    await bound(peer, "all", TO);
    await bound(peer, "both", BOTH);
    await bound(peer, "dhcp", 67);
    // An address tells the kernel by which interface a broadcast leaves.
    await bound(peer, "sender", BOTH, "192.0.2.7");
    await bound(inside, "from", FROM);
    await bound(inside, "both", BOTH);
    await bound(inside, "open", OPEN);
    await inside.send("from", "255.255.255.255", 67, "dhcp");
    for (const to of ["255.255.255.255", "192.0.2.255"]) {
      await inside.send("from", to, TO, `out ${to}`);
      for (const one of [host, peer]) {
        await one.untilText("all", `out ${to}`);
        await assertOnce(one, "all", `out ${to}`);
      }
      const [, from, port] = (await peer.received("all")).at(-1)!;
      assertEquals([from, port], ["192.0.2.2", FROM]);
      await peer.send("all", from, port, `answer ${to}`);
      await inside.untilText("from", `answer ${to}`);
      // A program that is spoken to at the port from which it speaks, as in many games.
      await inside.send("both", to, BOTH, `out of ${to}`);
      await peer.untilText("both", `out of ${to}`);
      await peer.send("sender", to, BOTH, `in to ${to}`);
      await inside.untilText("both", `in to ${to}`);
      await assertOnce(inside, "both", `in to ${to}`);
      await peer.send("sender", to, OPEN, `open ${to}`);
      await inside.untilText("open", `open ${to}`);
      await assertOnce(inside, "open", `open ${to}`);
      // As on any host, a kernel gives its own sockets what it sends to all; the host's kernel did so as well, with penne's.
      await assertOnce(inside, "both", `out of ${to}`);
    }
    assertEquals(await peer.texts("dhcp"), []);

    // A member of a group at an open port gets what is sent there once, and nothing back of what it has sent.
    const group = "239.77.1.8";
    await bound(peer, "member", OPEN);
    await peer.join("member", group);
    await inside.join("open", group);
    await lab.reach(4, group, OPEN, "open");
    await inside.send("open", group, OPEN, "said");
    await peer.untilText("member", "said");
    for (const text of ["heard", "last"]) await peer.send("sender", group, OPEN, text);
    await inside.untilText("open", "last");
    for (const text of ["said", "heard"]) await assertOnce(inside, "open", text);
  },
);
