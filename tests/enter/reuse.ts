// A process ends, and another one gets its PID. reuse_test.ts runs this program as PID 1 of a pid namespace, with a /proc
// of its own. Argument: the compiled binary. Exits with 0 if no function and no command takes one process for the other.

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { openPid, waitChild } from "../../ffi/sys/process.ts";
import { pipe, readText } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self } from "../../ffi/core/task.ts";
import { TargetProcess } from "../../mod/enter/process.ts";
import { PenneError } from "../../mod/base/errors.ts";
import { until } from "../lib/helpers.ts";

const penne = Deno.args[0]!;

/** Starts a process in a net namespace of its own. */
function sleeper(): Deno.ChildProcess {
  return new Deno.Command("unshare", { args: ["-n", "sleep", "1000"], stdin: "null" }).spawn();
}

async function end(child: Deno.ChildProcess): Promise<void> {
  child.kill("SIGKILL");
  await child.status;
}

/** Starts another process with the same PID. */
async function reuse(pid: number): Promise<Deno.ChildProcess> {
  for (let i = 0; i < 200; i++) {
    Deno.writeTextFileSync("/proc/sys/kernel/ns_last_pid", `${pid - 1}`);
    const child = sleeper();
    if (child.pid === pid) return child;
    await end(child);
  }
  throw new Error(`cannot make another process ${pid}`);
}

/** Runs penne with a descriptor as number 9. */
function withDescriptor(fd: Fd, args: string[]): { code: number | null; stderr: string } {
  const agent = Agent.spawn();
  const [reader, writer] = pipe();
  call(agent, "dup3", fd, 9, 0);
  const environment = [new TextEncoder().encode(`PATH=${Deno.env.get("PATH")}`)];
  const stdio = [Fd.borrow(0), Fd.borrow(1), writer];
  const error = exec(agent, penne, [penne, ...args], environment, { stdio });
  writer.close();
  if (error) throw error;
  agent.socket.close();
  const stderr = readText(self, `/proc/self/fd/${reader.number}`);
  reader.close();
  const { code } = waitChild(agent.pid);
  agent.close();
  return { code, stderr };
}

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

async function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(args[0]!, { args: args.slice(1), stdin: "null" }).output();
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

/** Waits until a process is in its own net namespace. */
async function isApart({ pid }: Deno.ChildProcess): Promise<void> {
  const own = Deno.readLinkSync("/proc/self/ns/net");
  await until("it has its namespace", () => Deno.readLinkSync(`/proc/${pid}/ns/net`) !== own);
}

const victim = sleeper();
const { pid } = victim;
await isApart(victim);
using process = new TargetProcess("the victim", openPid(pid));
const { ino } = stat(self, process.pidfd);
using other = new TargetProcess("the victim", openPid(pid));
other.read("look at", "cgroup"); // has opened its directory in /proc
assertEquals(withDescriptor(process.pidfd, ["enter", "fd:9", "--", "true"]), { code: 0, stderr: "" });
assertEquals((await run(penne, "enter", `${pid}:${ino}`, "--", "true")).code, 0);
await end(victim);
const decoy = await reuse(pid);

for (const target of [process, other]) {
  for (
    const use of [
      () => target.namespaceByPidfd("net"),
      () => target.namespaceByProc("net"),
      () => target.read("look at", "environ"),
      () => target.open("look at", "root", 0o10000000),
    ]
  ) assertEquals(assertThrows(use, PenneError).code, "ESRCH");
}
const byFd = withDescriptor(process.pidfd, ["enter", "fd:9", "--", "echo", "ran"]);
assertEquals(byFd.code, 125);
assertStringIncludes(byFd.stderr, "No such process (ESRCH)");
const byInode = await run(penne, "enter", `${pid}:${ino}`, "--", "echo", "ran");
assertEquals([byInode.code, byInode.stdout], [125, ""]);
assertStringIncludes(byInode.stderr, `penne: cannot enter the namespaces of process ${pid}: No such process (ESRCH)`);
assertStringIncludes(byInode.stderr, "is another process now");
await end(decoy);

/** The process of penne that has opened a pidfd, if one has. */
function opener(): string | undefined {
  return [...Deno.readDirSync("/proc")].map(({ name }) => name).find((name) => {
    try {
      if (!/^\d+$/.test(name) || Deno.readTextFileSync(`/proc/${name}/cmdline`).split("\0")[0] !== penne) return false;
      const fds = [...Deno.readDirSync(`/proc/${name}/fd`)].map((fd) =>
        Deno.readLinkSync(`/proc/${name}/fd/${fd.name}`)
      );
      return fds.some((link) => link.includes("pidfd"));
    } catch {
      return false; // it has ended, or a descriptor has been closed
    }
  });
}

// First between the look-up of the process and the opening of its namespaces, then with a kernel that opens none by pidfd.
for (const extra of [[], ["-e", "inject=ioctl:error=ENOTTY"]]) {
  const target = sleeper();
  await isApart(target);
  // penne is stopped as soon as it has the pidfd, until another process has the PID.
  const trace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=pidfd_open:signal=SIGSTOP:when=1", ...extra];
  const racing = run(...trace, penne, "enter", `${target.pid}`, "--", "echo", "ran");
  await until("penne has looked the process up", () => opener() !== undefined);
  const stopped = Number(opener());
  await end(target);
  const successor = await reuse(target.pid);
  Deno.kill(stopped, "SIGCONT");
  const { code, stdout, stderr } = await racing;
  assertEquals([code, stdout], [125, ""], stderr);
  assertStringIncludes(stderr, "No such process (ESRCH)");
  await end(successor);
}
Deno.exit(0);
