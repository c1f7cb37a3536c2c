// The library follows the host, too.

import "../../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { AT_ONCE } from "../../lib/end.ts";
import { test, until } from "../../lib/helpers.ts";
import { fromFileUrl } from "../../lib/paths.ts";
import { FollowLab, NEEDS, type Served } from "./lab.ts";

const MOD = new URL("../../../mod/mod.ts", import.meta.url).href;
const CONFIG = fromFileUrl(new URL("../../../deno.json", import.meta.url));

/** A program that serves four namespaces, one of which keeps its first network, and one has two interfaces of the host. */
const PROGRAM = `
  import { attach, spawn } from ${JSON.stringify(MOD)};
  const command = ["sleep", "1000"];
  using child = spawn({ command, net: "tap" });
  using alone = spawn({ command, net: "none" });
  using still = spawn({ command, net: "none" });
  using both = spawn({ command, net: "tap", network: { interface: ["up0", "eth1"] } });
  using attachment = attach([String(alone.pid)], { onWarning: console.error });
  using other = attach([String(still.pid)], { follow: false, onWarning: console.error });
  console.log([child, alone, still, both].map(({ pid }) => pid).join());
  await new Promise((resolve) => setTimeout(resolve, 1_000_000));
`;

test(
  "spawn() and attach() come online with the host, and go back with it, but not with follow: false",
  NEEDS,
  async () => {
    await using follow = await FollowLab.open(false);
    const { lab } = follow;
    await follow.host("link add eth1 type veth peer name eth2", "link set eth2 up");
    await follow.host("link set eth1 addrgenmode none", "link set eth1 up");
    const directory = await Deno.makeTempDir({ prefix: "penne-follow-" });
    lab.defer(() => Deno.remove(directory, { recursive: true }));
    await Deno.writeTextFile(`${directory}/program.ts`, PROGRAM);
    const argv = [Deno.execPath(), "run", "-A", "--no-check", "--config", CONFIG, `${directory}/program.ts`];
    const daemon = lab.start(lab.in(lab.host, argv), { cwd: "/" });
    let over = false;
    daemon.ended.then(() => over = true);
    await until("they are served", () => over || daemon.output().includes("\n"));
    assertEquals(over, false, daemon.errors());
    const [child, alone, still, both] = daemon.output().trim().split(",").map((pid): Served => ({
      daemon,
      pid: Number(pid),
    }));
    const offline = { 4: null, 6: null };
    for (const served of [child!, alone!, still!]) await follow.equal(served, offline);
    await lab.usual();
    for (const served of [child!, alone!]) await follow.equal(served);
    await follow.host("addr add 198.51.100.9/24 dev up0");
    for (const served of [child!, alone!]) await follow.equal(served);
    assertEquals(await follow.differences(still!, offline), []); // it has had the time to be changed, as the others were
    await follow.equal(both!, { 4: "up0", 6: "up0" });
    await follow.host("addr add 10.3.0.2/24 dev eth1");
    const name = await follow.name(both!);
    const addresses = async () =>
      (await follow.picture(follow.inside(both!, []), 4, name)).filter((line) => /^\d/.test(line)).join();
    const wanted = "10.3.0.2/24,192.0.2.2/24,198.51.100.9/24";
    const start = performance.now();
    while (await addresses() !== wanted && performance.now() - start < AT_ONCE) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assertEquals(await addresses(), wanted);
    await follow.host("link set eth1 down", "link set up0 down");
    for (const served of [child!, alone!, still!]) await follow.equal(served, offline);
    assertEquals(daemon.errors(), "");
  },
);
