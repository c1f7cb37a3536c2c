// `penne pesto`, and penne under the name pesto: changes the ports of a running pasta, also one of others.

import { SysError } from "../../../ffi/core/errno.ts";
import { VERSION } from "../../base/version.ts";
import { portRange } from "../../datapath/netif/tcp_ports.ts";
import { formatRule, sameRule } from "../../forward/rule.ts";
import { PestoClient } from "../../pesto/client.ts";
import { change, formatSides, type PestoRequest, readPestoCommandLine, Refusal } from "../../pesto/command_line.ts";
import { PestoError, type Side } from "../../pesto/wire.ts";
import { say } from "../common/output.ts";

/** What `--version` says, in lines. */
const VERSION_TEXT = `pesto ${VERSION} (penne)
penne ${VERSION}, which has the command line of pesto(1), <https://passt.top>
`;

/** The rules that were to be there and are not: their ports could not be opened. */
function missing(wanted: readonly Side[], found: readonly Side[]): string[] {
  return wanted.flatMap(({ id, rules }) => {
    const there = found.find((side) => side.id === id)?.rules ?? [];
    return rules.filter((rule) => !there.some((other) => sameRule(rule, other)));
  }).map((rule) => `Couldn't listen on requested ports: ${formatRule(rule).trimEnd()}\n`);
}

/** Carries out what is asked for; returns what could not be done. */
function carryOut({ path, steps, show }: PestoRequest): string {
  let wanted: Side[];
  {
    using client = new PestoClient(path);
    const before = client.read();
    if (show || steps.length === 0) {
      const title = steps.length === 0 ? "passt/pasta configuration" : "Previous configuration";
      say(Deno.stdout, `${title} (${path})\n${formatSides(before)}`);
    }
    if (steps.length === 0) return "";
    wanted = change(before, steps, portRange());
    client.write(wanted);
  }
  // There is no acknowledgement. The next client is let in after the change, and finds what is in force.
  using again = new PestoClient(path);
  const after = again.read();
  if (show) say(Deno.stdout, `Updated configuration (${path})\n${formatSides(after)}`);
  return missing(wanted, after).join("");
}

/** What to say of an error; null if penne itself is at fault. */
function describe(error: unknown, path: string): string | null {
  if (error instanceof Refusal) return error.message;
  if (error instanceof PestoError) return `Failed to read from ${path}: ${error.message}`;
  if (!(error instanceof SysError)) return null;
  const what = { connect: "connect to", bind: "connect to", recvfrom: "read from", sendto: "write to" };
  const done = what[error.syscall as keyof typeof what] ?? `use (${error.syscall})`;
  return `Failed to ${done} ${path}: ${error.reason}`;
}

/**
 * Does what a command line of pesto(1) asks for.
 *
 * @param args The words after the program's name, or after `pesto`.
 * @param name The name of the program if it stands for the command, else null.
 * @returns The exit code.
 */
export function start(args: readonly string[], name: string | null = null): number {
  const request = readPestoCommandLine(args, { program: name ?? "pesto", version: VERSION_TEXT });
  if ("code" in request) {
    if (request.stdout) say(Deno.stdout, request.stdout);
    if (request.stderr) say(Deno.stderr, request.stderr);
    return request.code;
  }
  try {
    const problems = carryOut(request);
    if (problems) say(Deno.stderr, problems);
    return problems ? 1 : 0;
  } catch (error) {
    const said = describe(error, request.path);
    if (said === null) throw error;
    say(Deno.stderr, `${said}\n`);
    return 1;
  }
}
