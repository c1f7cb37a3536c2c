// Ports of the host that programs publish: free again at once when what they lead to has ended, and open to later changes.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { ROOT, test } from "../lib/helpers.ts";
import { program } from "../lib/program.ts";

const IMPORT = `const { attach } = await import("file://${ROOT}mod/mod.ts");`;

/**
 * Options of a turn: with an interface and without. In every third turn nobody waits for the Worker that serves, so that it
 * has not loaded its code yet; in another one a client has just connected.
 */
const TURNS = `
  const turns = async (count, turn) => {
    const clients = [];
    for (let i = 0; i < count; i++) {
      const both = "127.0.0.1/18072:80";
      await turn({ tcp: both, udp: both, localOnly: i % 2 === 0 }, async (ports) => {
        if (i % 3 > 0) await ports.list();
        // Nothing listens inside, so it is reset, which Deno may see as early as here.
        if (i % 3 > 1) clients.push(await Deno.connect({ hostname: "127.0.0.1", port: 18072 }).catch(() => null));
      });
    }
    for (const client of clients) client?.close();
    console.log("done");
  };`;

const ENDS = {
  "asynchronous disposal": "await box[Symbol.asyncDispose]();",
  "disposal": "box[Symbol.dispose]();",
  "end()": "box.end();",
  "kill() and status": 'box.kill("SIGKILL"); await box.status;',
} as const;

for (const [how, end] of Object.entries(ENDS)) {
  test(`ports of the host are free for the next command at once: ${how}`, ["tun"], async () => {
    const { code, stdout, stderr } = await program(`${TURNS}
      await turns(30, async (ports, use) => {
        const box = new Command("sleep", { args: ["100"], net: "tap", ports, stdin: "null" }).spawn();
        await use(box.ports());
        ${end}
      });`);
    assertEquals([code, stdout, stderr], [0, "done\n", ""]);
  });
}

test("ports and the interface are gone when close() of an attachment returns", ["tun"], async () => {
  const { code, stdout, stderr } = await program(`${IMPORT}${TURNS}
    await using box = new Command("sleep", { args: ["1000"], net: "none" }).spawn();
    await turns(30, async (ports, use) => {
      const attachment = attach([box.pid], { ports });
      await use(attachment.ports());
      attachment.close();
    });`);
  assertEquals([code, stdout, stderr], [0, "done\n", ""]);
});

test("ports are free when onDetach() is called, and what it gets is what is told of a namespace", ["tun"], async () => {
  const { code, stdout, stderr } = await program(`${IMPORT}${TURNS}
    await turns(6, async (ports, use) => {
      const box = new Command("sleep", { args: ["1000"], net: "none" }).spawn();
      const attachment = attach([box.pid], {
        ports,
        onDetach: (attached) => {
          Deno.listen({ hostname: "127.0.0.1", port: 18072 }).close();
          console.log(Object.keys(attached).join());
        },
      });
      await use(attachment.ports());
      box.kill("SIGKILL");
      await attachment.done;
      await box.status;
    });`);
  assertEquals([code, stdout, stderr], [0, "target,netns,interface\n".repeat(6) + "done\n", ""]);
});

test("ports inside can be added where ports were given, though there were none", ["tun"], async () => {
  const { code, stdout, stderr } = await program(`${IMPORT}
    const shown = async (served) => {
      try {
        await served.add({ tcpOut: 5000 });
        console.log((await served.list()).map(({ first, outward }) => [first, outward].join()).join(" "));
      } catch (error) {
        console.log(error.message, "-", ...await error.hints());
      }
    };
    for (const given of [{ ports: {} }, {}]) {
      await using box = new Command("sleep", { args: ["1000"], net: "tap", stdin: "null", ...given }).spawn();
      await shown(box.ports());
      await using other = new Command("sleep", { args: ["1000"], net: "none", stdin: "null" }).spawn();
      using attachment = attach([other.pid], given);
      await shown(attachment.ports());
    }`);
  const refused =
    "cannot add ports: TCP [*]%lo:5000  =>  5000  (out) is a port inside, and this penne holds nothing there - " +
    "give it the option ports from the start, as {} at least; attach() also without quit: false and fd:N\n";
  assertEquals([code, stdout, stderr], [0, "5000,true\n".repeat(2) + refused.repeat(2), ""]);
});
