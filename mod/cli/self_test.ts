// Hidden self-test of a compiled binary: checks every assumption about the runtime of Deno.

import { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, F, O, S, SIGNAL } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { readBytes, readLink, readText } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { say } from "./common/output.ts";
import { BackgroundLink, LINK_OPTION, startInBackground } from "./common/background.ts";

function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

function threads(): number {
  return Number(/^Threads:\s*(\d+)/m.exec(readText(self, "/proc/self/status"))?.[1]);
}

/** The compiled program has one thread; `deno run` has several. */
function checkThreads(): void {
  if (!Deno.build.standalone) return;
  must(threads() === 1, `the process has ${threads()} threads, not one`);
}

/** The agent is executed from a sealed memfd, and makes syscalls for penne. */
function checkAgent(): void {
  using agent = Agent.spawn();
  must(Agent.execRefused === undefined, `the memfd cannot be executed: ${Agent.execRefused?.message}`);
  must(call(agent, "getpid") === agent.pid, "the agent is not the process that was started");
  must(
    readLink(self, `/proc/${agent.pid}/exe`).startsWith("/memfd:penne-agent"),
    "the agent is not run from the memfd",
  );
  using image = agent.open("openat", AT_FDCWD, new TextEncoder().encode("/proc/self/exe\0"), O.CLOEXEC);
  must((call(self, "fcntl", image, F.GET_SEALS) & F.SEAL_ALL) === F.SEAL_ALL, "the agent's image is not sealed");
}

/** Arguments arrive as typed, after the name of the program. */
function checkArguments(): void {
  const words = new TextDecoder().decode(readBytes(self, "/proc/self/cmdline")).split("\0").slice(0, -1);
  // From source, those of Deno come first.
  const own = Deno.build.standalone ? words.slice(1) : words.slice(-Deno.args.length);
  must(own.length === Deno.args.length, `there are ${own.length} arguments, not ${Deno.args.length}`);
  must(own.every((word, i) => word === Deno.args[i]), "the arguments are not those of /proc/self/cmdline");
}

/** Node's process, which is there without being loaded, knows the name that the program was called by. */
function checkName(): void {
  if (!Deno.build.standalone) return;
  const [name] = new TextDecoder().decode(readBytes(self, "/proc/self/cmdline")).split("\0");
  const known = (globalThis as { process?: { argv0?: string } }).process?.argv0;
  must(known === name, `the program was called ${name}, and the runtime says ${known}`);
}

/** The signal handler of the shim is called, and starts no thread. */
function checkSignals(): void {
  using signals = new SignalPipe();
  signals.catch(SIGNAL.USR1);
  call(self, "kill", call(self, "getpid"), SIGNAL.USR1);
  must(poll([{ fd: signals.reader, events: 1 }], 1000)[0] !== 0, "a signal did not come through the pipe");
  must(signals.take()[0]?.signal === SIGNAL.USR1, "another signal came through the pipe");
}

/** The number of descriptors that show as this link in /proc/self/fd. */
function duplicates(target: string): number {
  let count = 0;
  for (let fd = 0; fd < 256; fd++) {
    const buffer = new Uint8Array(256);
    const path = new TextEncoder().encode(`/proc/self/fd/${fd}\0`);
    const n = self.raw("readlinkat", AT_FDCWD, path, out(buffer), buffer.length);
    if (n > 0 && new TextDecoder().decode(buffer.subarray(0, n)) === target) count++;
  }
  return count;
}

/** The second process survives garbage collections, timers and dynamic imports. */
async function behind(value: string): Promise<number> {
  const link = new BackgroundLink(value);
  checkThreads();
  for (const fd of [0, 1]) {
    const { mode } = stat(self, Fd.borrow(fd));
    // Output to a file continues in the background.
    const isFile = fd === 1 && (mode & S.IFMT) === S.IFREG;
    const isNull = readLink(self, `/proc/self/fd/${fd}`) === "/dev/null";
    must(isNull || isFile, `descriptor ${fd} is neither /dev/null nor a file in the background`);
  }
  const stderr = readLink(self, `/proc/self/fd/${link.log.number}`);
  const isPipe = stderr.startsWith("pipe:");
  must(!isPipe || duplicates(stderr) === 1, `${duplicates(stderr)} descriptors hold the caller's stderr, not one`);
  let kept: unknown[] = [];
  for (let round = 0; round < 20; round++) {
    kept = Array.from({ length: 20_000 }, (_, i) => ({ i, text: `${i}` }));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  must(kept.length === 20_000, "memory was corrupted");
  must((await import("../base/version.ts")).VERSION.length > 0, "a dynamic import failed");
  checkThreads();
  link.done(0);
  return 0;
}

/**
 * Tests the runtime of this binary.
 *
 * @param args Nothing, or the hidden option of the second process.
 * @returns Exit code 0 if all checks hold, else 1.
 */
export async function start(args: readonly string[]): Promise<number> {
  try {
    const [link] = args;
    if (link?.startsWith(`--${LINK_OPTION}=`)) return await behind(link.slice(LINK_OPTION.length + 3));
    checkThreads();
    checkAgent();
    checkArguments();
    checkName();
    checkSignals();
    const code = startInBackground("__self-test", [], [], false);
    must(code === 0, `the process in the background failed with ${code}`);
    checkThreads();
    return 0;
  } catch (error) {
    say(Deno.stderr, `penne: self-test: ${error instanceof Error ? error.message : error}\n`);
    return 1;
  }
}
