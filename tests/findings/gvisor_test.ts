// gVisor, a kernel that is not Linux: each command says that in one line, and works on Linux itself.

import { assertEquals } from "@std/assert";
import { netOption, penne, sh, test } from "../lib/helpers.ts";
import { assertRefused } from "./lab/hosts.ts";

/** What each command says there first, and what the kernel lacks. */
const COMMANDS: readonly (readonly [args: readonly string[], message: string, lacks: string])[] = [
  [["run", "--net=none", "--", "echo", "ran"], "cannot make mounts private: .* \\(EPERM\\)", "all that penne needs"],
  [["run", "--", "echo", "ran"], "cannot make mounts private: .* \\(EPERM\\)", "all that penne needs"],
  [["watch", "--backend", "poll", "--", "true"], "cannot watch a descriptor: .* \\(EPERM\\)", "all that penne needs"],
  [["watch", "--backend", "proc", "--", "true"], "cannot watch by the process connector: .*", "it"],
  [["watch", "--backend", "ebpf", "--", "true"], "cannot observe namespaces by eBPF: .* \\(ENOSYS\\)", "bpf\\(2\\)"],
  [["enter", "1", "--", "true"], "cannot enter the namespaces of process 1: .* \\(ENOSYS\\)", "pidfd_open\\(2\\)"],
  [["attach", "1"], "cannot open the network namespace of process 1: .* \\(ENOSYS\\)", "pidfd_open\\(2\\)"],
  [
    ["keep", "--dir", "/tmp/x", "box", "--pid", "1"],
    "cannot keep the namespaces of process 1: .*",
    "pidfd_open\\(2\\)",
  ],
  [["keep", "--dir", "/tmp/x", "box", "--", "true"], "cannot make the directory of kept namespaces .*", "all .* needs"],
];

test("gVisor is named as the kernel that lacks what a command needs", ["root", "package:runsc"], async () => {
  const state = await Deno.makeTempDir({ prefix: "penne-gvisor-" });
  // The platform that needs nothing of the machine. The sandbox sees the files of the machine, and writes none.
  const within = ["runsc", "--platform=ptrace", "--network=none", `--root=${state}`, "do"];
  try {
    for (const [args, message, lacks] of COMMANDS) {
      assertRefused(
        await sh([...within, penne(), ...args]),
        new RegExp(`^penne: ${message}$`),
        new RegExp(`^this kernel is gVisor's, which does not have ${lacks}; run penne on Linux itself \\(.*\\)$`),
      );
    }
  } finally {
    await Deno.remove(state, { recursive: true });
  }
  const { stdout } = await sh([penne(), "run", ...netOption(), "--", "echo", "ran"]);
  assertEquals(stdout, "ran\n"); // the fix
});
