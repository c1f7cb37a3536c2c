// A namespace among the members of a group on its host and on the link: who gets what, and each datagram once.

import { assertEquals, assertMatch } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { assertOnce, GroupLab, NEEDS, type Received, type Sockets, socketsIn, untilAsync } from "./lab.ts";

const MDNS = 5353;
const GROUPS = [[4, "224.0.0.251", "192.0.2.2"], [6, "ff02::fb", null]] as const;

/** The warnings of penne. */
function warnings({ served }: GroupLab): string[] {
  return served.daemon.errors().split("\n").filter((line) => line.includes("warning"));
}

/** Opens a member of the group of mDNS, which shares its port. */
async function member(sockets: Sockets, family: number, group: string): Promise<string> {
  const name = `mdns${family}`;
  await sockets.open(name, family);
  await sockets.bind(name, family, MDNS);
  await sockets.join(name, group);
  return name;
}

/** Sends a text to the group of mDNS from its port, and waits until others have it. */
async function say(from: Sockets, name: string, group: string, text: string, to: readonly Sockets[]): Promise<void> {
  await from.send(name, group, MDNS, text, 255);
  for (const one of to) await one.untilText(name, text);
}

test("Two namespaces, their host and its link are in a group, and each datagram arrives once", [
  ...NEEDS,
  "package:tcpdump",
], async () => {
  await using lab = await GroupLab.open((follow) => follow.run(false));
  const { follow, host, peer, inside } = lab;
  const second = await socketsIn(follow, await follow.attach(true, "pid"));
  const all = [host, inside, second, peer];
  const capture = follow.lab.start(
    follow.lab.in(follow.lab.peer, ["tcpdump", "-l", "-n", "-A", "-i", "down0", "udp port 5353"]),
  );
  await untilAsync("the capture begins", () => Promise.resolve(capture.errors().includes("listening on")));
  const said: string[] = [];
  for (const [family, group, address] of GROUPS) {
    let name = "";
    for (const one of all) name = await member(one, family, group);
    // Both are members when they get what the peer sends.
    for (let i = 0, ready = false; !ready; i++) {
      await peer.send(name, group, MDNS, `begin ${i}`);
      ready = (await inside.texts(name)).length > 0 && (await second.texts(name)).length > 0;
    }
    for (const [i, from] of all.entries()) {
      // Two equal ones are two datagrams.
      const text = `from ${i} of ${family};`;
      said.push(text);
      await say(from, name, group, text, all);
      await say(from, name, group, `${text} again`, all);
      if (from === inside) {
        const [, , port, hops] = await find(peer, name, text);
        assertEquals([port, hops], [MDNS, 255]);
      }
    }
    // What was said first has come everywhere by now, if it comes twice anywhere.
    await say(peer, name, group, `end ${family}`, all);
    for (const one of all) {
      for (const text of said.filter((text) => text.endsWith(` ${family};`))) await assertOnce(one, name, text);
    }
    if (address) {
      const [, from] = await find(peer, name, `from 1 of ${family};`);
      assertEquals(from, address);
    }
  }
  await untilAsync("all is captured", () => Promise.resolve(said.every((text) => capture.output().includes(text))));
  for (const text of said) {
    const times = capture.output().split(text).length - 1;
    assertEquals(times, 2, `${text} was captured ${times} times, with the one that says "again"`);
  }
});

/** What a socket has received of a text. */
async function find(sockets: Sockets, name: string, text: string): Promise<Received> {
  const received = (await sockets.received(name)).find(([one]) => one === text);
  if (!received) throw new Error(`${name} has not received ${text}`);
  return received;
}

test(
  "A host that has the port of a group for itself is told of once, and groups are spoken to anyway",
  NEEDS,
  async () => {
    await using lab = await GroupLab.open((follow) => follow.run(false));
    const { host, peer, inside } = lab;
    await host.open("own", 4, false);
    await host.bind("own", 4, MDNS);
    const name = await member(inside, 4, "224.0.0.251");
    await member(peer, 4, "224.0.0.251");
    await inside.open("other", 4);
    await inside.bind("other", 4, 20_001);
    await inside.join("other", "239.77.1.9");
    await lab.reach(4, "239.77.1.9", 20_001, "other");
    await peer.send(name, "224.0.0.251", MDNS, "lost");
    await lab.reach(4, "239.77.1.9", 20_001, "other");
    assertEquals(await inside.texts(name), []);
    await say(inside, name, "224.0.0.251", "said", [peer]);
    assertMatch(
      warnings(lab).join("\n"),
      /group 224\.0\.0\.251 at port 5353 .* another program of the host has the port/,
    );
    assertEquals(warnings(lab).length, 1, warnings(lab).join("\n"));
    // The program ends: now it comes in, when the sockets inside are looked at again, as after a new membership.
    await host.do("close", "own");
    await inside.open("third", 4);
    await inside.join("third", "239.77.1.10");
    await untilAsync("mDNS comes in", async () => {
      await peer.send(name, "224.0.0.251", MDNS, "heard");
      return (await inside.texts(name)).includes("heard");
    });
  },
);
