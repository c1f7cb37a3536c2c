// Reads the command line of pesto(1), and changes tables by it; pure.
//
// --add, --delete and --clear are commands, carried out in their order. Ports that are named before any of them replace those
// of their side: `-t 80` is `-C HOST -t 80`.

import {
  addRule,
  formatRule,
  type ForwardingRule,
  narrowed,
  type Protocol,
  RuleError,
  sameRule,
} from "../forward/rule.ts";
import { parsePortSpec, type PortRange, type PortSpec, rulesOf, SpecError } from "../forward/spec.ts";
import { getopt, GetoptError, type LongOption } from "../pasta/getopt.ts";
import { SIDE, type Side } from "./wire.ts";

/** A row of the table. */
interface Row<Key extends string> extends LongOption<Key> {
  /** What the value is called. */
  readonly argument?: string;
  /** What it does. */
  readonly help: string;
}

function row<const Key extends string>(key: Key, short: string, argument: string, help: string): Row<Key> {
  return { key, name: key, value: argument !== "", help, ...short && { short }, ...argument && { argument } };
}

/** All options. */
export const OPTIONS = [
  row("add", "A", "", "Add the ports that follow to those that there are"),
  row("delete", "D", "", "Delete the ports that follow"),
  row("clear", "C", "SIDE", "Delete all ports of a side: HOST, or SPLICE for those inside"),
  row("tcp-ports", "t", "SPEC", "TCP ports of the host that lead inside; repeatable"),
  row("udp-ports", "u", "SPEC", "UDP ports of the host that lead inside; repeatable"),
  row("tcp-ns", "T", "SPEC", "TCP ports inside that lead to the host; repeatable"),
  row("udp-ns", "U", "SPEC", "UDP ports inside that lead to the host; repeatable"),
  row("show", "s", "", "Print the tables before and after the change"),
  row("debug", "d", "", "Accepted, and without effect"),
  row("help", "h", "", "Print this"),
  row("version", "", "", "Print the version"),
];

/** What a specification of ports is for. */
const SPECS: Readonly<Record<string, { side: number; protocol: Protocol }>> = {
  "tcp-ports": { side: SIDE.HOST, protocol: "TCP" },
  "udp-ports": { side: SIDE.HOST, protocol: "UDP" },
  "tcp-ns": { side: SIDE.SPLICE, protocol: "TCP" },
  "udp-ns": { side: SIDE.SPLICE, protocol: "UDP" },
};

/** One change, in the order of the command line. */
export type Step =
  | { readonly kind: "clear"; readonly name: string }
  | {
    readonly kind: "add" | "delete" | "replace";
    readonly side: number;
    readonly protocol: Protocol;
    /** What is added or deleted; null for nothing. */
    readonly spec: PortSpec | null;
  };

/** What a command line asks for. */
export interface PestoRequest {
  /** The control socket. */
  readonly path: string;
  /** The changes; none to see the tables. */
  readonly steps: readonly Step[];
  /** Whether to print the tables before and after the change. */
  readonly show: boolean;
}

/** What is printed in place of doing anything. */
export interface PestoAnswer {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

/** What cannot be done, in pesto's words. */
export class Refusal extends Error {
  override readonly name = "Refusal";
}

/** The text of `pesto --help`. */
function usageText(program: string): string {
  const rows = OPTIONS.map(({ name, short, argument, help }) => {
    const letter = short ? `-${short}, ` : "    ";
    return `  ${letter}--${`${name}${argument ? ` ${argument}` : ""}`.padEnd(16)}  ${help}\n`;
  });
  return `Usage: ${program} [OPTION]... PATH\n\n${rows.join("")}`;
}

function specOf(key: string, value: string): PortSpec | null {
  try {
    const spec = parsePortSpec(value);
    const { side } = SPECS[key]!;
    if (!spec?.listens || side === SIDE.HOST) return spec;
    const { short } = OPTIONS.find((option) => option.key === key)!;
    throw new Refusal(`Listening address not allowed for -${short} ${value}`);
  } catch (error) {
    throw error instanceof SpecError ? new Refusal(error.message) : error;
  }
}

/**
 * Reads a command line of pesto(1).
 *
 * @example
 * ```ts
 * import { readPestoCommandLine } from "./command_line.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const facts = { program: "pesto", version: "pesto 1\n" };
 * const request = readPestoCommandLine(["--add", "-t", "127.0.0.1/8080:80", "/run/s"], facts);
 * assertEquals("steps" in request && request.steps.map(({ kind }) => kind), ["add"]);
 * assertEquals(readPestoCommandLine(["-t", "x", "/run/s"], facts), {
 *   stdout: "",
 *   stderr: "Invalid port specifier 'x'\n",
 *   code: 1,
 * });
 * ```
 *
 * @param args The arguments, without the program's name.
 * @param facts What the program is called, and what `--version` prints.
 * @returns What is asked for, or the end of the program.
 */
export function readPestoCommandLine(
  args: readonly string[],
  { program, version }: { readonly program: string; readonly version: string },
): PestoRequest | PestoAnswer {
  const steps: Step[] = [];
  let [kind, show]: ["add" | "delete" | "replace", boolean] = ["replace", false];
  const options = getopt(args, OPTIONS);
  const refuse = (stderr: string): PestoAnswer => ({ stdout: "", stderr, code: 1 });
  try {
    for (;;) {
      const { done, value: given } = options.next();
      if (done) {
        const [path, ...more] = given;
        if (path === undefined || more.length > 0) return refuse(usageText(program));
        return { path, steps, show };
      }
      const { key, value } = given;
      if (key === "help") return { stdout: usageText(program), stderr: "", code: 0 };
      if (key === "version") return { stdout: version, stderr: "", code: 0 };
      if (key === "show") show = true;
      else if (key === "add" || key === "delete") kind = key;
      else if (key === "clear") steps.push({ kind: "clear", name: value! });
      else if (key !== "debug") steps.push({ kind, ...SPECS[key]!, spec: specOf(key, value!) });
    }
  } catch (error) {
    if (error instanceof Refusal) return refuse(`${error.message}\n`);
    if (!(error instanceof GetoptError)) throw error;
    return refuse(`${program}: ${error.message}\n${usageText(program)}`);
  }
}

/** The rules of a specification for a side. Inside, programs are reached by the loopback interface only. */
function rulesFor(step: Exclude<Step, { kind: "clear" }>, ephemeral: PortRange): ForwardingRule[] {
  if (!step.spec) return [];
  const rules = rulesOf(step.spec, step.protocol, ephemeral);
  return step.side === SIDE.SPLICE ? rules.map((rule) => ({ ...rule, interface: "lo" })) : rules;
}

/**
 * Changes tables.
 *
 * @param sides The sides and their rules.
 * @param steps The changes.
 * @param ephemeral Ports that are left out where none are named.
 * @returns The sides with their new rules.
 * @throws {Refusal} If a change is not possible.
 */
export function change(sides: readonly Side[], steps: readonly Step[], ephemeral: PortRange): Side[] {
  const rules = new Map(sides.map((side) => [side.id, [...side.rules]]));
  const replaced = new Set<number>();
  for (const step of steps) {
    if (step.kind === "clear") {
      const side = sides.find(({ name }) => name === step.name);
      if (!side) throw new Refusal(`Unsupported pif name ${step.name}`);
      rules.set(side.id, []);
      replaced.add(side.id);
      continue;
    }
    const side = sides.find(({ id }) => id === step.side);
    if (!side) throw new Refusal(`There is no table for ${step.protocol} ports of that side`);
    if (step.kind === "replace" && !replaced.has(side.id)) {
      rules.set(side.id, []);
      replaced.add(side.id);
    }
    const known = rules.get(side.id)!;
    for (const rule of rulesFor(step, ephemeral)) {
      if (step.kind === "delete") {
        const wanted = narrowed(rule, side.limits);
        const at = known.findIndex((other) => sameRule(other, wanted) || sameRule(other, rule));
        if (at < 0) {
          const shown = formatRule(wanted);
          throw new Refusal(`Couldn't find forwarding rule to delete: ${shown}\nUnable to delete rule ${shown}`);
        }
        known.splice(at, 1);
        continue;
      }
      try {
        addRule(known, rule, side.limits);
      } catch (error) {
        throw error instanceof RuleError ? new Refusal(error.message) : error;
      }
    }
  }
  return sides.map((side) => ({ ...side, rules: rules.get(side.id)! }));
}

/**
 * Writes tables as pesto(1) shows them.
 *
 * @param sides The sides.
 * @returns Lines.
 */
export function formatSides(sides: readonly Side[]): string {
  return sides.map(({ name, rules }) => [`  ${name}\n`, ...rules.map((rule) => `    ${formatRule(rule)}\n`)].join(""))
    .join("");
}
