// A check: a script, and what has to be seen of it on each kernel.

import { type Architecture, isOlder, type Kernel, type Version } from "./kernels.ts";
import type { Ran } from "./guest.ts";

/** Who runs a check. */
export type Who = "root" | "user";

/** The groups of checks. */
export const COMMANDS = [
  ...["run", "enter", "attach", "keep", "inspect", "drop", "wait"],
  ...["watch (poll)", "watch (proc)", "watch (ebpf)", "watch (auto)", "nsexec", "self-test", "all commands"],
  ...["ls", "doctor", "ports", "pasta"],
] as const;

/** Where an outcome is to be seen; everywhere, if nothing is said. */
export interface Where {
  readonly from?: Version;
  readonly before?: Version;
  readonly who?: Who;
  readonly architecture?: Architecture;
}

/** What is to be seen of a check. */
export interface Outcome extends Where {
  /** For the table in docs/kernels.md; "works" by default. */
  readonly is?: "works" | "falls back" | "refused";
  /** What it falls back to. */
  readonly to?: string;
  /** Exit code of the script; 0 by default. */
  readonly code?: number;
  /** What both outputs contain. The first text of a refusal is its words in the document. */
  readonly sees?: readonly (string | RegExp)[];
  /** What they do not contain. */
  readonly not?: readonly (string | RegExp)[];
}

/** A check. */
export interface Check {
  readonly command: typeof COMMANDS[number];
  readonly title: string;
  /** Script for bash with `set -eu`, in an empty directory of its own; `penne` is in the PATH. */
  readonly script: string;
  /** Both by default. */
  readonly who?: Who;
  /** Of these, the first one whose place it is. */
  readonly outcomes: readonly Outcome[];
  /** Whether it is one of the few that CI runs. */
  readonly core?: boolean;
}

/** Whether an outcome is to be seen there. */
function isPlace({ from, before, who, architecture }: Where, version: string, arch: Architecture, as: Who): boolean {
  return !(from && isOlder(version, from)) && !(before && !isOlder(version, before)) && (who ?? as) === as &&
    (architecture ?? arch) === arch;
}

/** What is to be seen of a check on a kernel. @throws {Error} If the check does not say it. */
export function outcomeOf(check: Check, kernel: Pick<Kernel, "version" | "architecture">, who: Who): Outcome {
  const found = check.outcomes.find((one) => isPlace(one, kernel.version, kernel.architecture, who));
  if (!found) throw new Error(`${check.title}: no outcome for Linux ${kernel.version}, ${who}`);
  return found;
}

/** What is wrong with what a script did; null if nothing is. */
export function judge(outcome: Outcome, { code, output }: Ran): string | null {
  const has = (what: string | RegExp) => typeof what === "string" ? output.includes(what) : what.test(output);
  const wrong = [
    ...code === (outcome.code ?? 0) ? [] : [`exit ${code} instead of ${outcome.code ?? 0}`],
    ...(outcome.sees ?? []).filter((what) => !has(what)).map((what) => `it does not say ${what}`),
    ...(outcome.not ?? []).filter(has).map((what) => `it says ${what}`),
  ];
  return wrong.length ? `${wrong.join("; ")}:\n${output}` : null;
}
