// Tries checks on a kernel, and compares what they did with what has to be seen.

import { type Check, judge, outcomeOf, type Who } from "./check.ts";
import { machine } from "./disk.ts";
import { runGuest } from "./guest.ts";
import { plan, putPenne, putSources, testScript } from "./job.ts";
import type { Kernel, Version } from "./kernels.ts";

/** What was seen on a kernel. */
export interface Seen {
  readonly release: string;
  /** Checks that were run, each one by root and by the user counted once. */
  readonly checks: number;
  /** What is wrong; nothing if the kernel is right. */
  readonly faults: readonly string[];
  readonly seconds: number;
  /** What each check printed. */
  readonly outputs: readonly { readonly check: Check; readonly who: Who; readonly output: string }[];
}

/**
 * Tries checks on a kernel.
 *
 * @param limit Seconds for the guest.
 * @param show Called with each line of its console.
 * @throws {Unreachable} If something cannot be fetched.
 */
export async function tryKernel(
  kernel: Kernel,
  checks: readonly Check[],
  limit: number,
  show?: (line: string) => void,
): Promise<Seen> {
  const begin = performance.now();
  const guest = await machine(kernel);
  const job = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "penne-job-" });
  try {
    await putPenne(kernel, job);
    const planned = plan(checks);
    const log = await runGuest(guest, job, planned.map(({ script }) => script), { script: 180, guest: limit }, show);
    // The suite may have a newer kernel than when this was written.
    const version = guest.release.split(".").slice(0, 2).join(".") as Version;
    const faults: string[] = [];
    for (const { check, who, script } of planned) {
      const ran = log.ran.find(({ name }) => name === `${script.name}.${who}`);
      const wrong = ran ? judge(outcomeOf(check, { ...kernel, version }, who), ran) : "it has not run";
      if (wrong) faults.push(`${check.command}: ${check.title}, ${who}: ${wrong}`);
    }
    if (!log.complete) faults.push(`the guest did not come to the end within ${limit} s:\n${log.console.slice(-2000)}`);
    const wrongs = /BUG|WARNING|Oops|general protection/.exec(log.console);
    if (wrongs) faults.push(`the kernel complains: ${log.console.slice(wrongs.index, wrongs.index + 500)}`);
    const outputs = planned.map(({ check, who, script }) => ({
      check,
      who,
      output: log.ran.find(({ name }) => name === `${script.name}.${who}`)?.output ?? "",
    }));
    const seconds = Math.round((performance.now() - begin) / 1000);
    return { release: guest.release, checks: log.ran.length, faults, seconds, outputs };
  } finally {
    await Deno.remove(job, { recursive: true });
  }
}

/**
 * Runs tests of the project on a kernel of aarch64.
 *
 * @param paths Files and folders, of the last commit.
 * @returns What they printed, and whether all of them passed.
 */
export async function testOn(
  kernel: Kernel,
  paths: readonly string[],
  limit: number,
  show?: (line: string) => void,
): Promise<{ readonly output: string; readonly passed: boolean }> {
  const guest = await machine(kernel);
  const job = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "penne-job-" });
  try {
    await putPenne(kernel, job);
    await putSources(job);
    const { ran, console } = await runGuest(
      guest,
      job,
      [testScript(paths)],
      { script: limit, guest: limit + 60 },
      show,
    );
    return { output: ran[0]?.output ?? console, passed: ran[0]?.code === 0 };
  } finally {
    await Deno.remove(job, { recursive: true });
  }
}
