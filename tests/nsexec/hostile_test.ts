// The root of a joined namespace can do nothing to the stages in it.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { AT_FDCWD, F, MS, O } from "../../ffi/core/consts.ts";
import type { Agent } from "../../ffi/agent/agent.ts";
import { cString } from "../../ffi/core/memory.ts";
import { open } from "../../ffi/sys/file.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { mount } from "../../ffi/sys/mount.ts";
import type { NamespaceType } from "../../mod/namespaces/types.ts";
import { encodeBootstrap } from "../../mod/nsexec/message.ts";
import { penne, test, until } from "../lib/helpers.ts";
import { Bootstrap, link } from "./driver.ts";
import { Home } from "./namespaces.ts";

const ALL_SEALS = 0xf;
/** Capabilities 0-31 that engines give a container without a user namespace: no CAP_SYS_PTRACE. */
const CONTAINER_CAPABILITIES = 0xa80425fb;

/** Attacks on a process from inside; a negative result is the error number of a failure. */
const ATTEMPTS: Readonly<Record<string, (inside: Agent, pid: number) => number>> = {
  "write to its executable": (inside, pid) => tryOpen(inside, `/proc/${pid}/exe`, O.WRONLY),
  "read and write its executable": (inside, pid) => tryOpen(inside, `/proc/${pid}/exe`, O.RDWR),
  "read its executable": (inside, pid) => tryOpen(inside, `/proc/${pid}/exe`, O.RDONLY),
  "refer to its executable": (inside, pid) => tryOpen(inside, `/proc/${pid}/exe`, O.PATH),
  "see what its init pipe is": (inside, pid) =>
    inside.raw("readlinkat", AT_FDCWD, cString(`/proc/${pid}/fd/3`), out(new Uint8Array(64)), 64),
  "open its init pipe": (inside, pid) => tryOpen(inside, `/proc/${pid}/fd/3`, O.PATH),
  "refer to its log pipe": (inside, pid) => tryOpen(inside, `/proc/${pid}/fd/4`, O.PATH),
  "read its memory": (inside, pid) => tryOpen(inside, `/proc/${pid}/mem`, O.RDONLY),
  "write its memory": (inside, pid) => tryOpen(inside, `/proc/${pid}/mem`, O.RDWR),
  "read its environment": (inside, pid) => tryRead(inside, `/proc/${pid}/environ`),
  "read its mappings": (inside, pid) => tryRead(inside, `/proc/${pid}/maps`),
  "go to its root": (inside, pid) => tryOpen(inside, `/proc/${pid}/root`, O.PATH),
  "take one of its descriptors": (inside, pid) => {
    const pidfd = call(inside, "pidfd_open", pid, 0);
    const result = inside.raw("pidfd_getfd", pidfd, 3, 0);
    if (result >= 0) call(inside, "close", result);
    call(inside, "close", pidfd);
    return result;
  },
};

/** Opens and closes a file in an agent. */
function tryOpen(inside: Agent, path: string, flags: number): number {
  const fd = inside.raw("openat", AT_FDCWD, cString(path), flags | O.CLOEXEC, 0);
  if (fd >= 0) call(inside, "close", fd);
  return fd;
}

/** Reads from a file in an agent. */
function tryRead(inside: Agent, path: string): number {
  const fd = inside.raw("openat", AT_FDCWD, cString(path), O.RDONLY | O.CLOEXEC, 0);
  if (fd < 0) return fd;
  const n = inside.raw("read", fd, out(new Uint8Array(64)), 64);
  call(inside, "close", fd);
  return n;
}

/** Pids in an agent's /proc. */
function pidsInside(inside: Agent): number[] {
  return Array.from({ length: 300 }, (_, i) => i + 1).filter((pid) => tryOpen(inside, `/proc/${pid}`, O.PATH) >= 0);
}

const namespaced = (pid: number) => Number(/^NSpid:.*\t(\d+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]);

function dropCapabilities(inside: Agent): void {
  const header = new Uint8Array(new Uint32Array([0x20080522, 0]).buffer);
  const sets = new Uint32Array([CONTAINER_CAPABILITIES, CONTAINER_CAPABILITIES, 0, 0, 0, 0]);
  call(inside, "capset", header, new Uint8Array(sets.buffer));
}

const KINDS: [string, readonly NamespaceType[]][] = [
  ["a user namespace of its own", ["user", "pid", "mnt", "net", "ipc", "uts"]],
  ["no user namespace, and few capabilities", ["pid", "mnt", "net", "ipc", "uts"]],
];

for (const [what, types] of KINDS) {
  test(`a container with ${what} cannot reach into the stages that join it`, ["root"], async () => {
    // Its root is an unprivileged user of the host, or the root of the host.
    using home = new Home(types, 100000);
    const inside = home.agent;
    mount(inside, null, "/", null, MS.REC | MS.PRIVATE);
    mount(inside, "proc", "/proc", "proc", 0);
    const joinedList = home.list();
    if (!types.includes("user")) dropCapabilities(inside);
    const argv = [penne(), "nsexec", "--dialect", "seed", "--", "/bin/sh", "-c", "read x <&3"];
    using run = Bootstrap.start({ argv, env: { SECRET: "1" }, stepwise: true });
    run.send(encodeBootstrap({
      attributes: [
        { name: "cloneFlags", value: 0x2000000 },
        { name: "namespaces", value: new TextEncoder().encode(joinedList) },
        { name: "rootless", value: 0 },
      ],
    }, "seed"));
    run.send(new Uint8Array([0x80]));
    const before = pidsInside(inside);
    let [stage2, checks] = [0, 0];
    for (;;) {
      const line = run.step()!;
      if (line.text === "<= nsexec container setup") break; // from here on it is the command
      run.settle();
      stage2 ||= run.stagePid(2) ?? 0;
      if (line.stage === "nsexec-1") {
        // No process inside sees stage 1, which is not in the pid namespace that it has joined for its children.
        const strangers = pidsInside(inside).filter((pid) =>
          !before.includes(pid) && pid !== (stage2 && namespaced(stage2))
        );
        assert(stage2 === 0 ? strangers.length <= 1 : strangers.length === 0, `${strangers}`);
        if (!/^signal completion|^<~/.test(line.text)) sealed(line.pid); // then it is on its way out
      }
      if (stage2 === 0) continue;
      for (const [name, attempt] of Object.entries(ATTEMPTS)) {
        const result = attempt(inside, namespaced(stage2));
        assert(result === -1 || result === -13, `${name} after "${line.text}": ${result}`); // EPERM, EACCES
        checks++;
      }
      sealed(stage2);
    }
    assert(checks >= 5 * Object.keys(ATTEMPTS).length);
    run.go();
    assertEquals(run.wait(run.pid).code, 0);
    // The same attacks succeed on the command, if it has no more privileges than the attacker.
    if (types.includes("user")) {
      await until("the command runs", () => link(`/proc/${stage2}/exe`).includes("/bin/"));
      const names = Object.entries(ATTEMPTS).filter(([, attempt]) => attempt(inside, namespaced(stage2)) < 0);
      assertEquals(names.map(([name]) => name).filter((name) => !name.includes("executable")), []);
    }
  });
}

/** What a permitted reader sees of a stage: a sealed file, and an empty environment. */
function sealed(pid: number): void {
  assertMatch(link(`/proc/${pid}/exe`), /^\/memfd:penne-agent/);
  using image = open(self, `/proc/${pid}/exe`, O.RDONLY);
  assertEquals(call(self, "fcntl", image, F.GET_SEALS) & ALL_SEALS, ALL_SEALS);
  assert(self.raw("openat", AT_FDCWD, cString(`/proc/${pid}/exe`), O.WRONLY, 0) < 0);
  assertEquals(Deno.readTextFileSync(`/proc/${pid}/environ`), "");
}

test("the stages and the command have the descriptors that the caller passes on, and no others", ["root"], () => {
  using nothing = open(self, "/dev/null", O.RDWR);
  const argv = [penne(), "nsexec", "--dialect", "seed", "--", "/bin/sleep", "1000"];
  using run = Bootstrap.start({ argv, stepwise: true, fds: [[9, nothing]] });
  run.send(encodeBootstrap({ attributes: [{ name: "cloneFlags", value: 0x2000000 }] }, "seed"));
  run.send(new Uint8Array([0x80]));
  const fds = (pid: number) =>
    Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => link(`/proc/${pid}/fd/${name}`)).sort();
  const expected = (pid: number) => [0, 1, 2, 3, 4, 9].map((fd) => link(`/proc/${pid}/fd/${fd}`));
  let stage2 = 0;
  for (;;) {
    const line = run.step()!;
    if (line.text === "spawn stage-2") {
      assertMatch(Deno.readTextFileSync(`/proc/${line.pid}/comm`), /^runc:\[1:CHILD\]$/m);
    }
    if (line.text !== "signalling stage-2 to run") continue;
    stage2 = run.stagePid(2)!;
    // And its own socket, and that of stage 0.
    assertEquals(fds(stage2).filter((target) => !expected(stage2).includes(target)).length, 1);
    assertMatch(Deno.readTextFileSync(`/proc/${stage2}/comm`), /^runc:\[2:INIT\]$/m);
    assertMatch(Deno.readTextFileSync(`/proc/${run.pid}/comm`), /^runc:\[0:PARENT\]$/m);
    break;
  }
  run.go();
  assertEquals(run.wait(run.pid).code, 0);
  assertEquals(fds(stage2), expected(stage2).sort());
  assertEquals(Array.from(Deno.readDirSync(`/proc/${stage2}/fd`), ({ name }) => name).sort(), [
    "0",
    "1",
    "2",
    "3",
    "4",
    "9",
  ]);
});
