// The network of a library program: a Worker serves it while the program's event loop runs.

import { assert, assertEquals } from "@std/assert";
import { fromFileUrl } from "../lib/paths.ts";
import { sh, test } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";

const MOD = new URL("../../mod/mod.ts", import.meta.url).href;
const NEEDS = ["root", "tun", "package:iproute2", "package:util-linux", "package:socat"] as const;

test("run() and attach() in a library program have a network, and the program's event loop runs", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const guest = await lab.netns("guest");
  lab.start(lab.in(lab.peer, ["socat", "TCP-LISTEN:4000,fork,reuseaddr", "SYSTEM:sha256sum"]));
  await new Promise((resolve) => setTimeout(resolve, 200));
  const directory = await Deno.makeTempDir({ prefix: "penne-library-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  const program = `
    import { attach, run } from ${JSON.stringify(MOD)};
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    const ask = "head -c 5000000 /dev/zero | socat -t5 - TCP:192.0.2.1:4000";
    const { code } = await run({ command: ["sh", "-c", ask], net: "tap", unshare: ["net", "mnt", "pid"] });
    using attachment = attach([${JSON.stringify(guest)}], { onDetach: () => {}, onWarning: console.error });
    const [served] = attachment.served;
    const inside = await run({ command: ["nsenter", "--net=/run/netns/${guest}", "sh", "-c", ask], unshare: ["uts"] });
    clearInterval(timer);
    console.log(JSON.stringify({ code, inside: inside.code, name: served.interface, ticked: ticks > 10 }));
  `;
  await Deno.writeTextFile(`${directory}/program.ts`, program);
  const argv = [
    Deno.execPath(),
    "run",
    "--allow-ffi",
    "--allow-read",
    "--no-check",
    "--config",
    fromFileUrl(new URL("../../deno.json", import.meta.url)),
  ];
  const result = await sh(lab.in(lab.host, ["timeout", "30", ...argv, `${directory}/program.ts`]));
  assertEquals(result.code, 0, result.stderr);
  const sum = (await must(["sh", "-c", "head -c 5000000 /dev/zero | sha256sum"])).split(" ")[0]!;
  assertEquals(result.stdout.split(sum).length - 1, 2, result.stdout + result.stderr);
  assert(result.stdout.includes('{"code":0,"inside":0,"name":"up0","ticked":true}'), result.stdout);
  assertEquals(
    (await lab.json(guest, "link")).map(({ ifname }) => ifname),
    ["lo"],
    "the interface has gone with the program",
  );
});
