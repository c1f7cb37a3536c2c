// Keeps namespaces under a name, for any Deno program.

import { anything, object, text, whole } from "../base/check.ts";
import { keepProcess, prepareSetUp } from "../kept/preserve.ts";
import type { KeepOptions } from "../kept/reservation.ts";
import { RelayDriver } from "../run/relayed.ts";
import { startChild } from "../run/start.ts";
import { type CommandStatus, commandStatus } from "./child.ts";
import { denoError } from "./errors.ts";
import { KEPT, type SetUpOptions, setUpRequest } from "./options.ts";

/** The namespaces to keep: those of a process, or new ones. */
export type KeepRequest =
  & KeepOptions
  & ({
    /** The process. */
    readonly pid: number;
  } | {
    /** The set-up command and its namespaces; `net` is "none" or "host". It shares this program's standard streams. */
    readonly setUp: SetUpOptions;
    /** Milliseconds after which the command is killed; never by default, or after 5 minutes if another user controls it. */
    readonly timeout?: number;
  });

/** The result of {@linkcode keep}. */
export interface KeepResult {
  /** Whether a set has the name now. */
  readonly kept: boolean;
  /** How the set-up command ended; null if none ran. */
  readonly status: CommandStatus | null;
}

const check = object({ ...KEPT, pid: whole, setUp: anything, timeout: whole });

/** Refuses a request for both kinds of set, or for none. */
function checkKind(request: KeepRequest): void {
  if ("pid" in request === "setUp" in request) throw new TypeError("request has either a pid or a setUp");
}

/**
 * Keeps namespaces under a name: those of a process, or new ones if a set-up command succeeds in them.
 *
 * They outlive this program. As root they are mounted in /run/penne/ns; without privilege a process of 20 kB stays in them.
 *
 * @example
 * ```ts
 * import { drop, inspect, keep } from "../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const directory = Deno.makeTempDirSync(Deno.uid() === 0 ? { dir: "/run" } : {});
 * Deno.chmodSync(directory, 0o700);
 * const { kept } = await keep("example", { directory, setUp: { command: ["true"], unshare: ["user", "uts"] } });
 * assertEquals(kept, true);
 * assertEquals(Object.keys(inspect("example", { directory }).namespaces), ["user", "uts"]);
 * assertEquals(drop("example", { directory }), true);
 * new Deno.Command("umount", { args: [`${directory}/ns`], stderr: "null" }).outputSync();
 * Deno.removeSync(directory, { recursive: true });
 * ```
 *
 * @param name The name: a letter or `_`, then at most 63 letters, digits, `_` and `-`.
 * @param request The namespaces, and where to keep them.
 * @returns Whether they are kept, and how the set-up command ended.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {Deno.errors.NotFound} If there is no such set-up command; nothing is left then.
 * @throws {Deno.errors.PermissionDenied} If it may not be executed; nothing is left then.
 */
export async function keep(name: string, request: KeepRequest): Promise<KeepResult> {
  text(name, "name");
  check(request, "request");
  checkKind(request);
  if ("pid" in request) {
    keepProcess(name, request.pid, request);
    return { kept: true, status: null };
  }
  const options = setUpRequest(request.setUp, "request.setUp");
  using setUp = prepareSetUp(name, options, request);
  if (!setUp) return { kept: true, status: null };
  let [late, kept] = [false, false];
  const relay = new RelayDriver(options.onWarning);
  const start = () =>
    startChild(setUp.plan, {
      ...setUp.start,
      openRelay: relay.open,
      onExit: ({ code }, ended) => {
        if (code !== 0 || late) return;
        setUp.keep(ended);
        kept = true;
      },
    });
  using child = attemptStart(() => relay.drive(start), options);
  const timeout = request.timeout ?? setUp.timeLimit;
  const timer = timeout === null ? undefined : setTimeout(() => {
    late = true;
    child.kill("KILL");
  }, timeout);
  try {
    const status = commandStatus(await child.status);
    return { kept, status };
  } finally {
    clearTimeout(timer);
  }
}

/** Starts a command; its errors are Deno's where Deno has them. */
function attemptStart<T>(start: () => T, { command = [], cwd }: { command?: readonly string[]; cwd?: string }): T {
  try {
    return start();
  } catch (error) {
    throw denoError(error, command[0] ?? "", cwd);
  }
}
