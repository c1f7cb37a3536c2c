// `penne doctor`: says what works on this host, what does not, why, and what to do about it.

import { usage } from "../../base/errors.ts";
import { suggest } from "../../base/suggest.ts";
import { toJson, visible } from "../../base/visible.ts";
import { type Ability, type Diagnosis, doctor } from "../../findings/survey/mod.ts";
import { command } from "../common/command.ts";
import { print } from "../common/print.ts";
import type { CommandSpec, ParsedOptions } from "../options/table.ts";
import { SUMMARIES } from "../top_level.ts";

/** What `penne doctor` accepts. */
export const SPEC = {
  name: "doctor",
  synopsis: "[OPTIONS] [COMMAND]",
  summary:
    "Try what the commands of penne need on this host, or what COMMAND needs, and say why something is refused and what to do about it. Nothing is left behind.",
  mixed: true,
  groups: [{ title: "Output", options: [{ name: "json", help: "Print one JSON object" }] }],
  exitCodes: [
    ["0", "every command, or COMMAND, can do its usual work"],
    ["1", "something that it needs is refused"],
    ["2", "usage error; nothing was done"],
  ],
  examples: [
    ["penne doctor", "everything"],
    ["penne doctor run", "what penne run needs"],
    ["penne doctor --json | jq .works", "for a program"],
  ],
} as const satisfies CommandSpec;

const FAILURE = 1;

/** `penne doctor`. */
export const start = command(SPEC, main, FAILURE);

function abilityText({ name, commands, possible, error, instead, findings }: Ability): string {
  const state = possible ? "ok" : instead === null ? "refused" : "limited";
  const lines = [`${state.padEnd(9)}${name} (${commands.join(", ")})${error === null ? "" : `: ${error}`}`];
  for (const { words, fix, without } of findings) {
    lines.push(`because: ${words}`);
    if (fix !== null) lines.push(`fix: ${fix}`);
    if (without !== undefined) lines.push(`or: ${without}`);
  }
  if (!possible && findings.length === 0) lines.push("because: no cause could be verified");
  if (!possible && instead !== null) lines.push(`without it: ${instead}`);
  return lines.map((line, i) => `${i === 0 ? "" : " ".repeat(9)}${visible(line)}\n`).join("");
}

function text({ host, abilities, features }: Diagnosis): string {
  const { initial, capabilities } = host;
  const facts: [string, string | null][] = [
    ["kernel", host.kernel],
    ["runs in", host.surroundings],
    [
      "namespaces",
      initial.user && initial.pid
        ? null
        : `not in the initial ${
          [...initial.user ? [] : ["user"], ...initial.pid ? [] : ["pid"]].join(" and ")
        } namespace`,
    ],
    [
      "rights",
      capabilities === "all" ? "all capabilities that penne uses" : capabilities.join(", ") || "no capabilities",
    ],
    ["modules", host.modules?.join(", ") ?? null],
    ["confined", host.confinement],
    ["lockdown", host.lockdown],
    ["yama", host.ptraceScope === null ? null : `kernel.yama.ptrace_scope is ${host.ptraceScope}`],
    ["filter", host.filtered ? "system calls are filtered (seccomp)" : null],
    ["programs", host.noNewPrivileges ? "none gains rights (no_new_privs)" : null],
    ...host.faults.map((fault): [string, string] => ["fault", fault]),
  ];
  const lacking = features.filter(({ present }) => present === false);
  return [
    ...facts.filter(([, value]) => value !== null).map(([name, value]) => `${name.padEnd(12)}${visible(value!)}\n`),
    "\n",
    ...abilities.map(abilityText),
    ...lacking.length ? ["\n"] : [],
    ...lacking.map(({ name, since, use }) => `lacks    ${name}, of Linux ${since} (${use})\n`),
  ].join("");
}

/** Prints what was found out; returns the exit code. */
function main(options: ParsedOptions<typeof SPEC>): number {
  const [word, ...more] = [...options.operands, ...options.tail ?? []];
  if (more.length) throw usage("use more than one COMMAND");
  const names = Object.keys(SUMMARIES);
  if (word !== undefined && !names.includes(word)) {
    throw usage(`use "${word}": there is no such command`, suggest(word, names));
  }
  const diagnosis = doctor(word);
  print("write what was found out", options.json ? `${toJson(diagnosis)}\n` : text(diagnosis));
  return diagnosis.works ? 0 : FAILURE;
}
