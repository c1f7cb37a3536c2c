// What penne run keeps from its command by a filter of system calls, and that it keeps nothing else.

import { assertEquals, assertMatch } from "@std/assert";
import { E } from "../../ffi/core/errno.ts";
import { commandFilter } from "../../mod/confine/command_filter.ts";
import { VERDICT } from "../../mod/confine/filter.ts";
import { penneRun, sh, test } from "../lib/helpers.ts";
import { verdictOf } from "./interpreter.ts";

const [REFUSED, MISSING] = [VERDICT.ERRNO | E.EPERM, VERDICT.ERRNO | E.ENOSYS];
const NEWUSER = 0x1000_0000n;
const [TIOCSTI, TIOCLINUX] = [0x5412n, 0x541cn];

/** Interfaces of the kernel: AUDIT_ARCH_*, what is added to numbers, and the numbers of clone, unshare and ioctl. */
const INTERFACES = {
  x86_64: [
    [0xc000_003e, 0, 56, 272, 16],
    [0xc000_003e, 0x4000_0000, 56, 272, 514],
    [0x4000_0003, 0, 120, 310, 54],
  ],
  aarch64: [[0xc000_00b7, 0, 220, 97, 29], [0x4000_0028, 0, 120, 337, 54]],
} as const;

test("A command's filter refuses new user namespaces and typing in each interface of the kernel, and nothing else", () => {
  for (const arch of ["x86_64", "aarch64"] as const) {
    for (const typing of [false, true]) {
      const program = commandFilter(arch, typing);
      for (const [audit, base, clone, unshare, ioctl] of INTERFACES[arch]) {
        const verdict = (number: number, ...args: bigint[]) => verdictOf(program, arch, { number, args, audit });
        for (const call of [clone, unshare]) {
          assertEquals(verdict(base + call, NEWUSER | 0x4000_0000n), REFUSED);
          assertEquals(verdict(base + call, NEWUSER | 1n << 32n), REFUSED);
          assertEquals(verdict(base + call, 0x4000_0000n), VERDICT.ALLOW);
        }
        assertEquals(verdict(base + 435), MISSING);
        for (const request of [TIOCSTI, TIOCLINUX]) {
          for (const high of [0n, 1n << 32n]) {
            assertEquals(verdict(base + ioctl, 0n, request | high), typing ? REFUSED : VERDICT.ALLOW);
          }
        }
        assertEquals(verdict(base + ioctl, 0n, 0x5401n), VERDICT.ALLOW);
        const special: number[] = [clone, unshare, 435];
        for (let number = 0; number < 1024; number++) {
          if (!special.includes(number)) assertEquals(verdict(base + number, NEWUSER), VERDICT.ALLOW, `${number}`);
        }
      }
      assertEquals(verdictOf(program, arch, { number: 0, audit: 1 }), MISSING);
    }
  }
});

/** Tries calls inside, and prints the error numbers; a thread and a process work all the same. */
const TRY = `
import ctypes, os, threading
libc = ctypes.CDLL(None, use_errno=True)
def errno(*call):
    return 0 if libc.syscall(*map(ctypes.c_long, call)) >= 0 else ctypes.get_errno()
NEWUSER, NEWUTS = 0x10000000, 0x04000000
numbers = (272, 56, 16) if os.uname().machine == "x86_64" else (97, 220, 29)
null = os.open("/dev/null", os.O_RDWR)
tried = [errno(numbers[0], NEWUSER), errno(numbers[1], NEWUSER | 17, 0, 0, 0, 0), errno(435, 0, 0)]
tried += [errno(numbers[2], null, request) for request in (0x5412, 0x5412 | 1 << 32, 0x541c, 0x5401)]
thread = threading.Thread(target=lambda: tried.append("thread"))
thread.start(); thread.join()
print(*tried, os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1], errno(numbers[0], NEWUTS))
`;

for (const user of [false, true]) {
  const who = user ? "an unprivileged user" : "the caller";
  const needs = ["package:python3", ...user ? ["user"] as const : []] as const;
  test(
    `--no-userns and --seccomp default keep from the command what they say, for ${who} (CVE-2022-0185, CVE-2022-0492)`,
    needs,
    async () => {
      const kinds: [string[], string][] = [
        // Refused, and no such call; for a file that is no terminal.
        [["--no-userns"], "1 1 38 25 25 25 25 thread 0 0\n"],
        [["--seccomp", "default"], "1 1 38 1 1 1 25 thread 0 0\n"],
        [["--no-userns", "--seccomp", "default", "--no-init"], "1 1 38 1 1 1 25 thread 0 0\n"],
        // A user of no privileges inside.
        [["--no-userns", "--no-new-privs", "--map", "self"], `1 1 38 25 25 25 25 thread 0 ${user ? 1 : 0}\n`],
      ];
      for (const [options, expected] of kinds) {
        const { code, stdout, stderr } = await sh([...penneRun(options, { user }), "--", "python3", "-c", TRY], {
          user,
        });
        assertEquals([code, stderr, stdout], [0, "", expected], options.join(" "));
      }
    },
  );
}

test("A process that the filtered command starts has the filter too, and a command without one has none", async () => {
  const script = "sh -c 'grep ^Seccomp: /proc/self/status'; unshare --user true 2>/dev/null && echo made";
  for (const [options, expected] of [[["--no-userns"], "2\n"], [["--seccomp", "none"], "0\nmade\n"]] as const) {
    const { stdout } = await sh([...penneRun([...options]), "--", "sh", "-c", script]);
    assertEquals(stdout.replace(/Seccomp:\s*/, ""), expected);
  }
});

test("--no-userns with --seccomp none, and an unknown filter, are usage errors", async () => {
  for (const options of [["--no-userns", "--seccomp", "none"], ["--seccomp", "strict"]]) {
    const { code, stderr } = await sh([...penneRun(options), "--", "true"]);
    assertEquals(code, 2);
    assertMatch(stderr, /^penne: cannot use --/);
  }
});
