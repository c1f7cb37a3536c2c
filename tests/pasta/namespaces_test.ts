// penne under the name pasta: which namespaces it takes part in, how long it serves one, and what it keeps of its caller's.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { asUser, sh, test, until } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { call, Engine, pasta, running } from "./lib.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;
const NONE = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];

test("--netns-only leaves the user namespace as it is", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const words = [pasta(), "--netns-only", "--config-net", ...NONE];
  const script = "readlink /proc/self/ns/user /proc/self/ns/net; ip -br addr show dev up0";
  const root = await lab.run(lab.host, [...words, "--runas", "0", "--", "sh", "-c", script]);
  assertEquals(root.code, 0, root.stderr);
  const [user, net, address] = root.stdout.split("\n");
  assertEquals(user, Deno.readLinkSync("/proc/self/ns/user"));
  assert(net !== (await lab.run(lab.host, ["readlink", "/proc/self/ns/net"])).stdout.trim());
  assertMatch(address!, /192\.0\.2\.2\/24/);
  const refused = await sh(lab.in(lab.host, asUser([...words, "--", "true"])), { cwd: "/" });
  assertEquals([refused.code, refused.stdout, refused.stderr], [
    1,
    "",
    "Failed to clone process with detached namespaces: Operation not permitted\n",
  ]);
  const engine = await Engine.open(lab);
  const netns = await engine.named("only");
  assertEquals((await call(engine.argv([...words, "--netns", netns]))).code, 0);
  assertMatch(await must(engine.inside(netns, ["ip", "-br", "addr", "show", "dev", "up0"])), /192\.0\.2\.2\/24/);
  await must(engine.argv(["umount", netns]));
  await until("pasta has ended", () => running(words).length === 0);
});

test("--no-netns-quit serves a namespace whose name is gone, and stays until it is told to end", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const engine = await Engine.open(lab);
  const [kept, left] = [await engine.named("kept"), await engine.named("left")];
  const inside = lab.start(engine.inside(kept, ["sleep", "1000"]), { cwd: "/" });
  await until("it runs inside", () => Deno.readTextFileSync(`/proc/${inside.child.pid}/comm`) === "sleep\n");
  const words = [pasta(), "--config-net", ...NONE, "--no-netns-quit", "--netns", kept];
  const usual = [pasta(), "--config-net", ...NONE, "--netns", left];
  for (const one of [words, usual]) assertEquals((await call(engine.argv(one))).code, 0);
  await must(engine.argv(["umount", kept]));
  await must(engine.argv(["umount", left]));
  // By then it would have ended too.
  await until("the other one has ended", () => running(usual).length === 0);
  assertEquals(running(words).length, 1);
  const addresses = ["ip", "-br", "addr", "show", "dev", "up0"];
  const enter = ["nsenter", `--target=${inside.child.pid}`, "--net", "--"];
  assertMatch(await must(engine.argv([...enter, ...addresses])), /192\.0\.2\.2\/24/);
  Deno.kill(running(words)[0]!, "SIGTERM");
  await until("it has ended", () => running(words).length === 0);
});

test(
  "in the background, nothing of the caller's is kept, and closed standard streams are no obstacle",
  NEEDS,
  async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    const engine = await Engine.open(lab);
    const child = await engine.alone(["sleep", "1000"]);
    const words = [pasta(), "--config-net", ...NONE, `${child.pid}`];
    const session = Deno.readTextFileSync("/proc/self/stat").split(" ")[5];
    for (const streams of ["<&- >&- 2>&-", "<&-", ">/tmp/pasta-out 2>&1 </tmp 7</tmp", "2>&-"]) {
      const script = `cd ${Engine.directory}; exec "$@" ${streams}`.replaceAll("/tmp", Engine.directory);
      assertEquals((await call(engine.argv(["sh", "-c", script, "sh", ...words]))).code, 0, streams);
      const [pid] = running(words);
      const link = (name: string) => Deno.readLinkSync(`/proc/${pid}/${name}`);
      assertEquals([link("cwd"), link("fd/0"), link("fd/1"), link("fd/2")], ["/", ...Array(3).fill("/dev/null")]);
      const files = [...Deno.readDirSync(`/proc/${pid}/fd`)].flatMap(({ name }) => {
        try {
          return [link(`fd/${name}`)];
        } catch {
          return []; // closed meanwhile, as what follows the host opens and closes files
        }
      });
      assertEquals(files.filter((file) => file.startsWith(Engine.directory)), []);
      const own = Deno.readTextFileSync(`/proc/${pid}/stat`).split(" ")[5];
      assertEquals([own === session, own], [false, `${pid}`]);
      Deno.kill(pid!, "SIGTERM");
      await until("it has ended", () => running(words).length === 0);
    }
  },
);
