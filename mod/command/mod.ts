// Short forms of Command: a command and its namespaces in one object.

import type { JoinedNamespaces } from "../enter/plan.ts";
import type { NewNamespaces, SetupOptions } from "../run/plan.ts";
import { type Check, either, list, text, whole } from "../base/check.ts";
import type { ChildProcess, CommandStatus } from "./child.ts";
import { spawnRequest } from "./command.ts";
import type { CommandOptions, PlaceOptions, ProcessOptions } from "./options.ts";

/** A command and the namespaces to make for it. */
export interface RunOptions
  extends Omit<ProcessOptions, "args">, Omit<PlaceOptions, "enter">, SetupOptions, NewNamespaces {
  /** The command and its arguments; the login shell by default. */
  readonly command?: readonly string[];
}

/** A command and the namespaces to join. */
export interface EnterOptions
  extends Omit<ProcessOptions, "args">, Omit<PlaceOptions, "enter">, SetupOptions, JoinedNamespaces {
  /** A PID, `fd:N`, `netns:NAME`, paths, or the name of a kept set. */
  readonly target: string | number;
  /** The command and its arguments; the login shell by default. */
  readonly command?: readonly string[];
}

const command: Check = list(text);
const checkTarget: Check = either("a string, or a PID", text, whole);

function spawnWords(words: readonly string[] | undefined, options: CommandOptions): ChildProcess {
  if (options.args !== undefined) throw new TypeError('options has no "args": command has the arguments too');
  if (words !== undefined) command(words, "options.command");
  const [file = null, ...args] = words ?? [];
  return spawnRequest(file, { ...options, args }, "inherit");
}

/**
 * Starts a command in its own namespaces.
 *
 * The command ends with the returned object, with this program or with its agents, whichever ends first. Unless `stdin`,
 * `stdout` or `stderr` say otherwise, it shares those of this program; if another user may trace it, it gets a terminal and
 * pipes of its own, and this program copies.
 *
 * @example
 * ```ts
 * import { spawn } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using child = spawn({ command: ["sh", "-c", "exit $$"], hostname: "box" });
 * assertEquals((await child.status).code, 2); // PID 1 is the agent
 * ```
 *
 * @param options The command and its namespaces.
 * @returns The command, running.
 * @throws {Deno.errors.NotFound} If there is no such program or working directory.
 * @throws {Deno.errors.PermissionDenied} If it may not be executed.
 * @throws {TypeError} If an option has the wrong type, or there is no such option.
 * @throws {PenneError} If it fails otherwise. Nothing is left then.
 */
export function spawn(options: RunOptions): ChildProcess {
  const { command, ...rest } = checkedObject(options);
  return spawnWords(command, rest);
}

/** Refuses what has no properties to take apart. */
function checkedObject<T>(options: T): T {
  if (typeof options === "object" && options !== null) return options;
  throw new TypeError(`cannot use ${options} as options: it is not an object`);
}

/**
 * Runs a command in its own namespaces to its end.
 *
 * @example
 * ```ts
 * import { run } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await run({ command: ["sh", "-c", "exit 7"] }), { success: false, code: 7, signal: null });
 * ```
 *
 * @param options The command and its namespaces.
 * @returns How it ended.
 * @throws As {@linkcode spawn}.
 */
export async function run(options: RunOptions): Promise<CommandStatus> {
  for (const name of ["stdin", "stdout", "stderr"] as const) {
    if (checkedObject(options)[name] !== "piped") continue;
    throw new TypeError(`cannot pipe ${name} of run(): nobody could use it; spawn() can`);
  }
  using child = spawn(options);
  return await child.status;
}

/**
 * Starts a command in namespaces that exist already. This program itself joins nothing. What the command has started in the
 * background ends with it.
 *
 * @example
 * ```ts
 * import { enter, spawn } from "../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using box = spawn({ command: ["sleep", "100"], hostname: "box" });
 * using visitor = enter({ target: box.pid, command: ["sh", "-c", "test $(hostname) = box && exit 7"] });
 * assertEquals((await visitor.status).code, 7);
 * ```
 *
 * @param options The namespaces and the command.
 * @returns The command, running; `namespaces` are those that it joined.
 * @throws As {@linkcode spawn}.
 */
export function enter(options: EnterOptions): ChildProcess {
  const { target, command, ...rest } = checkedObject(options);
  if (target === undefined) throw new TypeError("options.target is missing");
  checkTarget(target, "options.target");
  return spawnWords(command, { ...rest, enter: target });
}
