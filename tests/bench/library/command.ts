// The library's Command beside Deno.Command: time of an output(), and bytes a second through a pipe.

import { Command } from "../../../mod/mod.ts";
import type { Contest, Contestant, Outcome } from "../harness.ts";

const PEER = "Deno.Command";
const OURS = ["Command, no namespace", "Command, user, pid and mnt"] as const;

/** Bytes that go through the pipe. */
const BYTES = 500_000_000;
/** Runs of `true` in one measurement. */
const RUNS = 10;

/** What both classes take. */
type Start = (command: string, options: Deno.CommandOptions) => Pick<Deno.Command, "output" | "spawn">;

async function measure(start: Start): Promise<{ output: number; rate: number }> {
  const before = performance.now();
  for (let i = 0; i < RUNS; i++) await start("true", {}).output();
  const output = (performance.now() - before) / RUNS;
  const child = start("head", { args: ["-c", `${BYTES}`, "/dev/zero"], stdout: "piped" }).spawn();
  const began = performance.now();
  let bytes = 0;
  for await (const chunk of child.stdout) bytes += chunk.length;
  const seconds = (performance.now() - began) / 1000;
  await child.status;
  if (bytes !== BYTES) throw new Error(`${bytes} bytes came through`);
  return { output, rate: bytes / seconds / 1e9 };
}

const contestant = (name: string, start: Start): Contestant => ({ name, measure: () => measure(start) });

function conclude(outcome: Outcome): string[] {
  const ratio = (name: string, metric: string) => {
    const [one, other] = [outcome.median(name, metric), outcome.median(PEER, metric)];
    return one != null && other != null ? (one / other).toFixed(2) : "no figure";
  };
  return OURS.map((name) =>
    `${name}: output() takes ${ratio(name, "output")} of its time, a pipe gives ${ratio(name, "rate")} (goal 0.9)`
  );
}

/** Compares Command without and with namespaces with Deno.Command. */
export function openCommand(): Contest {
  return {
    conditions: [`output() of true: the mean of ${RUNS}; a pipe: ${BYTES / 1e6} MB from head`],
    metrics: [
      { name: "output", title: "output() of true" },
      { name: "rate", title: "Through a pipe", unit: "GB/s" },
    ],
    contestants: [
      contestant(PEER, (command, options) => new Deno.Command(command, options)),
      contestant(OURS[0], (command, options) => new Command(command, { ...options, unshare: [] })),
      contestant(
        OURS[1],
        (command, options) => new Command(command, { ...options, unshare: ["user", "pid", "mnt"] }),
      ),
    ],
    baseline: PEER,
    timeLimit: 20_000,
    mostRounds: 20,
    conclude,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
