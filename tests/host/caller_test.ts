// The caller's ids and environment, and the users of the host.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { caller, environment, variable } from "../../mod/host/caller.ts";
import { parsePasswd } from "../../mod/users/passwd.ts";
import { test } from "../lib/helpers.ts";

test("environment() returns the environment that this process was started with, entry by entry", () => {
  const entries = environment();
  // The helpers of the tests change PATH, so it is compared with what the process was started with.
  const [path] = Deno.readTextFileSync("/proc/self/environ").split("\0").filter((entry) => entry.startsWith("PATH="));
  assertEquals(variable(entries, "PATH"), path?.slice("PATH=".length));
  assertEquals(variable(entries, "NO_SUCH_VARIABLE"), undefined);
});

test("caller() returns the ids and capabilities of this process", () => {
  const status = Deno.readTextFileSync("/proc/thread-self/status");
  const field = (name: string) => BigInt(`0x${new RegExp(`^${name}:\\s*(\\w+)`, "m").exec(status)![1]}`);
  const { uid, gid, capabilities, blocked } = caller();
  assertEquals([uid, gid], [Deno.uid(), Deno.gid()]);
  assertEquals([capabilities, blocked], [field("CapEff"), field("SigBlk")]);
});

test("parsePasswd() finds users by id and name, and skips broken lines", () => {
  const text = "broken\n::5:::\nroot:x:0:0:root:/root:/bin/bash\na:x:1000:1000::/home/a:\n";
  assertEquals(parsePasswd(text, 0), { name: "root", uid: 0, gid: 0, home: "/root", shell: "/bin/bash" });
  assertEquals(parsePasswd(text, 1000)?.shell, "");
  assertEquals([parsePasswd(text, "a")?.uid, parsePasswd(text, "0"), parsePasswd(text, "")], [1000, null, null]);
  assertEquals([parsePasswd(text, 5), parsePasswd(text, 7)], [null, null]);
});
