// What comes from an agent is data: root of the command's user namespace can take the agent's socket and speak in its place.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { encodeRequest, marshal, Operation, REPLY_FD } from "../../ffi/agent/wire.ts";
import { AT_FDCWD, O, SIGNAL } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { call } from "../../ffi/core/task.ts";
import { write } from "../../ffi/sys/file.ts";
import { setOpenFilesLimit, waitChild } from "../../ffi/sys/process.ts";
import { spawn } from "../../mod/mod.ts";
import { PidsGroup } from "../lib/pids_group.ts";
import { command, penne, processes, ROOT, test, until } from "../lib/helpers.ts";

const TAKEN =
  "penne: a process inside has taken the place of the agent that supervised the command, which was killed\n";
const STEAL = `${ROOT}tests/attack/steal.py`;

/** What is said in the agent's place that no agent says. */
const LIES = ["unknown", "short", "answer", "another process", "descriptors", "false end"];

/** The script is copied to where the user can read it. */
async function withScript(body: (script: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o755);
  await Deno.copyFile(STEAL, `${directory}/steal.py`);
  try {
    await body(`${directory}/steal.py`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const NEEDS = ["user", "user namespaces", "package:python3"] as const;

test("an agent that says what no agent says counts as lost", NEEDS, async (t) => {
  await withScript(async (script) => {
    for (const lie of LIES) {
      await t.step(lie, async () => {
        const argv = [penne(), "run", "--net=none", "--", "python3", script, lie];
        const child = command(argv, { user: true }, { stdout: "piped", stderr: "piped" }).spawn();
        let most = 0;
        const counting = setInterval(() => {
          try {
            most = Math.max(most, [...Deno.readDirSync(`/proc/${child.pid}/fd`)].length);
          } catch {
            // It has ended.
          }
        }, 1);
        const { code, stdout, stderr } = await child.output();
        clearInterval(counting);
        const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
        assertEquals([code, text(stdout), text(stderr)], [125, "in place\n", TAKEN]);
        assert(most < 100, `penne had ${most} descriptors`);
        assertEquals(processes().filter(({ cmdline }) => cmdline.includes(script)), []);
      });
    }
  });
});

test("an end is told by the kernel, not by an agent that does not reap", [...NEEDS, "kernel:6.15"], async () => {
  await withScript(async (script) => {
    const argv = [penne(), "run", "--net=none", "--", "python3", script, "false status"];
    const { code, stderr } = await command(argv, { user: true }, { stdout: "null", stderr: "piped" }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [125, TAKEN]);
  });
});

test("any number of reports does not keep penne from a signal", NEEDS, async () => {
  await withScript(async (script) => {
    const argv = [penne(), "run", "--net=none", "--", "python3", script, "flood"];
    const child = command(argv, { user: true }, { stdout: "piped", stderr: "null" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await new Promise((resolve) => setTimeout(resolve, 500));
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), 60_000); // the reports never end
    assertEquals((await child.status).code, 143);
    clearTimeout(late);
    await reader.cancel();
  });
});

test("another program is told that the command was killed, and gets no descriptors", ["package:python3"], async (t) => {
  const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
  for (const lie of LIES) {
    await t.step(lie, async () => {
      const before = descriptors();
      using child = spawn({ command: ["python3", STEAL, lie], net: "none" });
      assertEquals(await child.status, { success: false, code: 137, signal: "SIGKILL" });
      assert(descriptors() < before + 20);
    });
  }
  await t.step("any number of reports does not stop its event loop", async () => {
    using child = spawn({ command: ["python3", STEAL, "flood"], net: "none" });
    let ended = false;
    const status = child.status.finally(() => ended = true);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 10);
    await until("time goes on", () => ticks > 20);
    clearInterval(timer);
    assertEquals(ended, false);
    child.kill("SIGKILL");
    await status;
  });
});

test("an agent is lost for good: what comes late is no answer to the next request", () => {
  using agent = Agent.spawn();
  agent.setDeadline(50);
  const reason = (body: () => unknown) => {
    try {
      body();
    } catch (error) {
      return error instanceof AgentGoneError ? error.reason : error;
    }
  };
  Deno.kill(agent.pid, "SIGSTOP");
  assertEquals(reason(() => call(agent, "getpid")), "late");
  Deno.kill(agent.pid, "SIGCONT");
  assertEquals([reason(() => call(agent, "getuid")), agent.gone], ["late", "late"]);
  agent.close();
  waitChild(agent.pid);
});

test("an answer that cannot be sent is an error, and the agent goes on", async () => {
  const LIMIT = 8;
  const open = [AT_FDCWD, cString("/dev/null"), O.RDONLY | O.CLOEXEC] as const;
  const agents = [Agent.spawn(), Agent.spawn()] as const;
  const [silent, limited] = agents;
  if (Deno.uid() === 0) {
    for (const agent of agents) {
      call(agent, "setgroups", 0, null);
      call(agent, "setresgid", 54321, 54321, 54321);
      call(agent, "setresuid", 54321, 54321, 54321);
    }
  }
  // A user may not have more descriptors under way than a process may have open, unix(7).
  for (let i = 0; i <= LIMIT; i++) {
    const request = encodeRequest({ operation: Operation.SYSCALL, nr: NR.openat, flags: REPLY_FD }, marshal(open));
    write(silent.socket, request);
  }
  // What another process of this user has under way would count too, for a moment: no error tells that all were sent.
  const stop = encodeRequest({ operation: Operation.SYSCALL, nr: NR.kill }, marshal([silent.pid, SIGNAL.STOP]));
  write(silent.socket, stop);
  await until(
    "the other agent has sent its answers, which are under way",
    () => Deno.readTextFileSync(`/proc/${silent.pid}/stat`).includes(") T "),
  );
  setOpenFilesLimit(limited, { soft: BigInt(LIMIT), hard: BigInt(LIMIT) });
  for (let i = 0; i < 20; i++) assertThrows(() => limited.open("openat", ...open), SysError, "ETOOMANYREFS");
  assertEquals(call(limited, "getpid"), limited.pid);
  Deno.kill(silent.pid, "SIGCONT");
  for (const { socket } of agents) socket.close();
  for (const { pid } of agents) waitChild(pid);
  for (const agent of agents) agent.close();
});

test("a clone that the kernel refuses late is an error", ["pids cgroup"], () => {
  using group = new PidsGroup();
  using agent = Agent.spawn();
  group.add(agent.pid);
  group.limit(1);
  for (let i = 0; i < 20; i++) assertThrows(() => agent.clone(), SysError, "EAGAIN");
  assertEquals(call(agent, "getpid"), agent.pid);
  assertEquals([...Deno.readDirSync(`/proc/${agent.pid}/fd`)].length, 4);
  agent.socket.close();
  waitChild(agent.pid);
});
