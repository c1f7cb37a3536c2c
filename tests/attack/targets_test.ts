// Hostile targets of attach: any number of routes, and an interface that is deleted while it is set up.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { penne, test, until } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";

const NEEDS = ["root", "tun", "package:iproute2", "package:python3"] as const;
const ROUTES = 100_000;

function mostMemory(pid: number): number {
  return Number(/^VmHWM:\s*(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]);
}

test("the routes of a target take neither memory nor time", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  for (let i = 1; i <= 20; i++) await lab.ip(lab.host, "route", "add", `10.${i}.0.0/16`, "via", "192.0.2.1");
  const [plain, full] = [await lab.netns("plain"), await lab.netns("full")];
  await lab.ip(full, "link", "set", "lo", "up");
  const batch = Deno.makeTempFileSync({ prefix: "penne-routes-" });
  lab.defer(() => Deno.remove(batch));
  const addresses = Array.from({ length: ROUTES }, (_, i) => `100.${64 + (i >> 16)}.${i >> 8 & 255}.${i & 255}`);
  // Those of the host too, so that none of them can be added.
  const taken = Array.from({ length: 20 }, (_, i) => `10.${i + 1}.0.0/16`);
  Deno.writeTextFileSync(batch, [...addresses, ...taken].map((route) => `route add ${route} dev lo\n`).join(""));
  await must(["ip", "-n", full, "-batch", batch]);
  const results = [];
  for (const guest of [plain, full]) {
    const start = performance.now();
    const daemon = await lab.attach([guest]);
    results.push({ seconds: (performance.now() - start) / 1000, memory: mostMemory(daemon.child.pid) });
    if (guest === full) {
      assertEquals(daemon.errors().match(/is left out: there is another one/g)?.length, 20, daemon.errors());
    }
    daemon.child.kill("SIGTERM");
    await daemon.ended;
  }
  const [without, withRoutes] = results;
  assert(withRoutes!.memory < without!.memory + 40_000, JSON.stringify(results));
  assert(withRoutes!.seconds < without!.seconds + 30, JSON.stringify(results));
});

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Deletes an interface as soon as it appears, for some seconds. */
const DELETE = `
import socket, struct, sys, time
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
name = sys.argv[1].encode() + b"\\0"
name = struct.pack("HH", 4 + len(name), 3) + name + b"\\0" * (-len(name) % 4) # IFLA_IFNAME
body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + name
message = struct.pack("IHHII", 16 + len(body), 17, 5, 1, 0) + body # RTM_DELLINK
print("ready", flush=True)
end = time.time() + float(sys.argv[2])
while time.time() < end:
    s.send(message)
    s.recv(4096)
`;

test("a target whose interface is deleted at once is named, and the others are left as they were", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const [good, evil] = [await lab.netns("good"), await lab.netns("evil")];
  const directory = Deno.makeTempDirSync({ prefix: "penne-targets-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  const file = `${directory}/pid`;
  const deleter = lab.start(lab.in(evil, ["python3", "-c", DELETE, "up0", "1000"]));
  for (let tries = 0, failed = 0; failed < 3; tries++) {
    assert(tries < 100, "the interface could never be deleted in time");
    const { code, stderr } = await lab.run(lab.host, [
      "timeout",
      "120",
      penne(),
      "attach",
      "--background",
      "--pid-file",
      file,
      good,
      evil,
    ]);
    if (code === 0) {
      try {
        Deno.kill(Number(Deno.readTextFileSync(file)), "SIGTERM");
      } catch {
        // The interface was deleted a moment later, and penne has ended by itself.
      }
      await until("it has ended", () => !exists(file));
      continue;
    }
    failed++;
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, `"${evil}"`);
    assertMatch(stderr, /^penne: cannot /);
    assertEquals((await lab.json(good, "link")).map(({ ifname }) => ifname), ["lo"]);
  }
  deleter.child.kill("SIGKILL");
});

test("a request that fails while a target is set up names the target, whichever it is", [
  ...NEEDS,
  "package:strace",
], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const guest = await lab.netns("guest");
  let failed = 0;
  // The first dozen is about the host, and after some thirty there are no more. Nobody can remove loopback.
  for (let request = 12; request <= 32; request++) {
    const inject = ["-e", "trace=sendto", "-e", `inject=sendto:error=ENODEV:when=${request}`];
    const trace = ["strace", "-qq", "-o", "/dev/null", ...inject];
    const daemon = lab.start(lab.in(lab.host, [...trace, penne(), "attach", "--ready-fd", "1", guest]));
    let over = false;
    daemon.ended.then(() => over = true);
    await until("it is ready, or has failed", () => over || daemon.output() !== "");
    if (!over) {
      const { pid } = daemon.child;
      Deno.kill(Number(Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`)), "SIGTERM");
    } else {
      failed++;
      assertMatch(
        daemon.errors(),
        new RegExp(`^penne: cannot (look at the host's network|bring up loopback|[^\n]*"${guest}")`),
      );
    }
    await daemon.ended;
    assertEquals((await lab.json(guest, "link")).map(({ ifname }) => ifname), ["lo"]);
  }
  assert(failed >= 8, `${failed} failed`);
});
