// gVisor, a kernel that is not Linux: each command names it in one line, and works on Linux itself.

import { assertEquals } from "@std/assert";
import { netOption, penne, sh, test } from "../lib/helpers.ts";
import { assertRefused } from "./lab/hosts.ts";

/** What is tried there. Which call fails first differs between its versions. */
const COMMANDS = [
  "run --net=none -- echo ran",
  "run -- echo ran",
  "run --net=none --unshare net -- echo ran",
  "watch --backend poll -- true",
  "watch --backend proc -- true",
  "watch --backend ebpf -- true",
  "enter 1 -- true",
  "attach 1",
  "keep --dir /tmp/x box --pid 1",
  "keep --dir /tmp/x box -- true",
];

test("gVisor is named as the kernel that lacks what a command needs", ["root", "package:runsc"], async () => {
  const state = await Deno.makeTempDir({ prefix: "penne-gvisor-" });
  // The platform that needs nothing of the machine. The sandbox sees the files of the machine, and writes none.
  const within = ["runsc", "--platform=ptrace", "--network=none", `--root=${state}`, "do"];
  try {
    for (const args of COMMANDS) {
      assertRefused(
        await sh([...within, penne(), ...args.split(" ")]),
        /^penne: cannot .*: .* \(E[A-Z]+\)$/,
        /^this kernel is gVisor's, which does not have (all that penne needs|it|\w+\(2\)); run penne on Linux itself \(.*\)$/,
      );
    }
  } finally {
    await Deno.remove(state, { recursive: true });
  }
  const { stdout } = await sh([penne(), "run", ...netOption(), "--", "echo", "ran"]);
  assertEquals(stdout, "ran\n"); // the fix
});
