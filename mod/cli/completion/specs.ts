// The option tables of all commands, each loaded when it is asked for.

import type { CommandSpec } from "../options/table.ts";

/** The table of each command. */
export const SPEC_OF: Readonly<Record<string, () => Promise<CommandSpec>>> = {
  run: async () => (await import("../run.ts")).SPEC,
  enter: async () => (await import("../enter.ts")).SPEC,
  attach: async () => (await import("../attach.ts")).SPEC,
  ports: async () => (await import("../ports.ts")).SPEC,
  flows: async () => (await import("../listing/flows.ts")).SPEC,
  ls: async () => (await import("../listing/ls.ts")).SPEC,
  watch: async () => (await import("../watch/watch.ts")).SPEC,
  timeline: async () => (await import("../watch/timeline.ts")).SPEC,
  wait: async () => (await import("../wait.ts")).SPEC,
  keep: async () => (await import("../keep.ts")).SPEC,
  inspect: async () => (await import("../inspect.ts")).SPEC,
  drop: async () => (await import("../drop.ts")).SPEC,
  doctor: async () => (await import("../doctor/doctor.ts")).SPEC,
  nsexec: async () => (await import("../nsexec.ts")).SPEC,
  pasta: async () => (await import("../pasta/spec.ts")).SPEC,
  pesto: async () => (await import("../pesto/spec.ts")).SPEC,
  completions: async () => (await import("./completions.ts")).SPEC,
};
