// A process is never taken for one that ended before and had the same PID.

import { assertEquals } from "@std/assert";
import { penne, ROOT, sh, test } from "../lib/helpers.ts";
import { ALL, enter, Place, TELL } from "./places.ts";

test("a PID that another process has reused is not entered, whenever that happens", [
  "root",
  "package:util-linux",
  "package:strace",
], async () => {
  const driver = [Deno.execPath(), "run", "-A", "--no-check", "--quiet", `${ROOT}tests/enter/reuse.ts`, penne()];
  const { code, stderr } = await sh(["unshare", "-pf", "--mount-proc", "--kill-child", ...driver]);
  assertEquals([code, stderr], [0, ""]);
});

test(
  "namespaces are opened by /proc if the kernel opens none by pidfd",
  ["package:util-linux", "package:strace"],
  async () => {
    await using place = await Place.all();
    const trace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=ioctl:error=ENOTTY"];
    const result = await sh([...trace, penne(), "enter", `${place.pid}`, "--", "sh", "-c", TELL]);
    assertEquals([result.code, result.stderr], [0, ""]);
    assertEquals(result.stdout.trim().split("\n"), place.namespaces);
  },
);

test("kinds of namespaces that the kernel lacks are skipped", ["package:util-linux", "package:strace"], async () => {
  await using place = await Place.all();
  // The errors of such a kernel when a file is looked at, and when it is opened.
  const trace = ["strace", "-qq", "-o", "/dev/null", "-P", "/proc/self/ns/time", "-e", "inject=statx:error=ENOENT"];
  const result = await sh([...trace, penne(), "enter", `${place.pid}`, "--", "sh", "-c", TELL]);
  assertEquals([result.code, result.stderr], [0, ""]);
  const expected = [...place.namespaces.slice(0, -1), Deno.readLinkSync("/proc/self/ns/time")];
  assertEquals(result.stdout.trim().split("\n"), expected);
  assertEquals(ALL.at(-1), "time");
  assertEquals((await enter(["--type", "all", `${place.pid}`, "--", "true"])).code, 0);
});
