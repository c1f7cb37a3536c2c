// Time of a bootstrap: penne nsexec beside Debian's runc and, if installed, a newer one (packaging/newer runc).
//
// The driver of the tests starts each contestant, waits until it is ready for the message, sends it, and waits for the
// answer and for the end of stage 0. What runc does afterwards in Go is not timed, and neither is penne's command, which is
// killed when it has started.

import { POLL } from "../../ffi/core/consts.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { type Attribute, type Dialect, encodeBootstrap } from "../../mod/nsexec/message.ts";
import { Bootstrap } from "../nsexec/driver.ts";
import type { Contest, Contestant, Outcome } from "./harness.ts";
import { PENNE_BINARY, PENNE_MISSING } from "./workshop.ts";

const RUNC = "/usr/sbin/runc";
const NEWER = "/usr/local/bin/runc-newer";
const text = (value: string) => new TextEncoder().encode(value);

/** New user, mnt, uts, ipc, pid and net namespaces, as for a container. */
const ATTRIBUTES: readonly Attribute[] = [
  { name: "cloneFlags", value: 0x7c020000 },
  { name: "uidMap", value: text("0 0 65536\n") },
  { name: "gidMap", value: text("0 0 65536\n") },
  { name: "setgroup", value: 1 },
  { name: "oomScoreAdj", value: text("0") },
  { name: "rootless", value: 0 },
];

/** Milliseconds that the kernel needs to take a set of namespaces apart. */
const PAUSE = 25;

/**
 * Times a bootstrap.
 *
 * @param argv The program and its arguments.
 * @param dialect What it speaks.
 * @returns Milliseconds until it is ready, from the message to the answer, and until the end of stage 0.
 * @throws {Error} If it fails.
 */
export function measureBootstrap(
  argv: readonly string[],
  dialect: Dialect,
): Readonly<Record<"ready" | "answer" | "end", number>> {
  const message = encodeBootstrap({ flags: 1, attributes: ATTRIBUTES }, dialect);
  const start = performance.now();
  using run = Bootstrap.start({ argv, runc: true });
  using pidfd = openPid(run.pid);
  if (!run.until(() => (dialect === "1.2" ? run.log : run.received).length > 0)) throw new Error("it was not ready");
  const ready = performance.now();
  run.send(message);
  if (!run.until(() => run.pids !== null || run.ended) || !run.pids) throw new Error("it did not answer");
  const answer = performance.now();
  if (!poll([{ fd: pidfd, events: POLL.IN }], 5000)[0]) throw new Error("stage 0 does not end");
  const end = performance.now();
  const { code } = run.wait(run.pid);
  if (code !== 0) throw new Error(`stage 0 failed with ${code}`);
  return { ready: ready - start, answer: answer - ready, end: end - start };
}

function contestant(name: string, argv: readonly string[], dialect: Dialect, missing: string): Contestant {
  return {
    name,
    async measure() {
      if (!await Deno.stat(argv[0]!).then(() => true, () => false)) throw new Error(missing);
      return measureBootstrap(argv, dialect);
    },
  };
}

const [OLD_RUNC, NEW_RUNC, OLD_PENNE, NEW_PENNE] = ["runc, 1.1", "runc-newer, 1.2", "penne, 1.1", "penne, 1.2"];

function concludeNsexec(outcome: Outcome): string[] {
  const compare = (penne: string, runc: string) => {
    const parts = ["ready", "answer", "end"].map((metric) => {
      const above = outcome.above(penne, runc, metric);
      return above === null ? `${metric} cannot tell` : `${metric} ${above.toFixed(2)} ms`;
    });
    return `${penne} above ${runc}, by the medians: ${parts.join(", ")}`;
  };
  return [compare(OLD_PENNE, OLD_RUNC), compare(NEW_PENNE, NEW_RUNC)];
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export function openNsexec(): Promise<Contest> {
  const penne = (dialect: Dialect) => [PENNE_BINARY, "nsexec", "--dialect", dialect, "--", "sleep", "10"];
  return Promise.resolve({
    conditions: [
      "as root; new user, mnt, uts, ipc, pid and net namespaces with maps; the log is read",
      "the time begins before the program's process is made; it is ready with its zero byte or its first line",
    ],
    metrics: [
      { name: "ready", title: "from the start until it is ready" },
      { name: "answer", title: "from the message to the answer" },
      { name: "end", title: "from the start to the end of stage 0" },
    ],
    baseline: OLD_RUNC,
    pause: PAUSE,
    contestants: [
      contestant(OLD_RUNC, [RUNC, "init"], "1.1", "runc is not installed"),
      contestant(OLD_PENNE, penne("1.1"), "1.1", PENNE_MISSING),
      contestant(NEW_RUNC, [NEWER, "init"], "1.2", "runc-newer is not installed"),
      contestant(NEW_PENNE, penne("1.2"), "1.2", PENNE_MISSING),
    ],
    conclude: concludeNsexec,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
}
