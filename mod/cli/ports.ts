// `penne ports`: shows and changes the ports that lead into a namespace which a running penne serves.

import { PenneError, usage } from "../base/errors.ts";
import { ask } from "../control/client.ts";
import type { JsonFailure, JsonServedRule, Reply, Request } from "../control/message.ts";
import { formatRule, type ForwardingRule } from "../forward/rule.ts";
import { ruleFromJson, ruleToJson } from "../forward/rule_json.ts";
import { identifyTarget } from "../netns/open.ts";
import { parseTarget } from "../netns/target.ts";
import { command } from "./common/command.ts";
import { portError } from "./common/open_ports.ts";
import { say } from "./common/output.ts";
import { PORT_OPTIONS, portRequest } from "./options/ports.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";
import { firstGiven } from "./options/values.ts";

/** What `penne ports` accepts. */
export const SPEC = {
  name: "ports",
  synopsis: "ls|add|del TARGET [OPTIONS]",
  mixed: true,
  summary:
    "Show (ls), open (add) or close (del) the ports of the host that lead into a network namespace which a running penne serves. TARGET is the PID of a process in it, a name of ip netns, a path, or fd:N.",
  groups: [
    { title: "Ports", options: PORT_OPTIONS },
    { title: "Output", options: [{ name: "json", help: "Print each rule of ls as a JSON object, one a line" }] },
  ],
  exitCodes: [
    ["0", "done; the ports are open, or closed"],
    ["1", "failure; nothing was changed"],
    ["2", "usage error; nothing was done"],
  ],
  examples: [
    ["penne ports add 4711 -t 8080:80", "lead TCP port 8080 of the host to port 80 in the namespace of process 4711"],
    ["penne ports ls 4711", "show the ports that lead there"],
    ["penne ports del 4711 -t 8080:80", "close that port again; connections go on"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

const FAILURE = 1;

/** The rules of a command line, of which there must be one at least. */
function rulesOf(verb: string, options: Options): { rules: readonly ForwardingRule[]; freebind: boolean } {
  const { rules, freebind } = portRequest(options, undefined);
  if (rules.length > 0) return { rules, freebind };
  throw usage(`use ports ${verb}: no port is named`, ["--tcp-ports or --udp-ports names some, as in -t 8080:80"]);
}

function requestOf(verb: string, options: Options): Request {
  switch (verb) {
    case "ls": {
      const needless = firstGiven(options, PORT_OPTIONS);
      if (needless) throw usage(`use --${needless} with ports ls`);
      return { call: "ports.list" };
    }
    case "add": {
      const { rules, freebind } = rulesOf(verb, options);
      return { call: "ports.add", rules: rules.map(ruleToJson), freebind };
    }
    case "del":
      return { call: "ports.delete", rules: rulesOf(verb, options).rules.map(ruleToJson) };
    default:
      throw usage(`use ports ${verb}: there is no such action`, ["the actions are ls, add and del"]);
  }
}

/** The error for a request that was not carried out. */
function errorOf(failure: JsonFailure, verb: string): PenneError {
  const what = `${verb === "add" ? "add" : "delete"} ports`;
  const rule = "rule" in failure ? ruleFromJson(failure.rule) : null;
  if (!rule) {
    return new PenneError(`${what}: penne refuses the request: ${"reason" in failure ? failure.reason : failure.kind}`);
  }
  const shown = formatRule(rule).trimEnd();
  switch (failure.kind) {
    case "port":
      return portError({ rule, port: failure.port, errno: failure.errno });
    case "rule":
      return new PenneError(`${what}: ${failure.reason}`);
    case "absent":
      return new PenneError(`${what}: there is no rule ${shown}`, {
        hints: ["a rule is deleted as it was added: penne ports ls shows the rules"],
      });
    default:
      return new PenneError(`${what}: ${shown} follows the listeners inside, which this penne does not look for`, {
        hints: ["start it with --tcp-ports auto or --udp-ports auto"],
      });
  }
}

/** One line for each rule. */
function show({ rules = [] }: Reply & { ok: true }, json: boolean): string {
  const line = (served: JsonServedRule) => {
    if (json) return JSON.stringify(served);
    const rule = ruleFromJson(served);
    if (!rule) return JSON.stringify(served);
    const some = served.open < rule.last - rule.first + 1 ? `  (${served.open} open)` : "";
    return `${formatRule(rule).trimEnd()}${some}`;
  };
  return rules.map((rule) => `${line(rule)}\n`).join("");
}

/** Asks the penne that serves the target; returns the exit code. */
function main(options: Options): number {
  const [verb, text, ...more] = [...options.operands, ...options.tail ?? []];
  if (verb === undefined) throw usage("use ports: an action is missing", ["the actions are ls, add and del"]);
  const request = requestOf(verb, options);
  if (options.json && verb !== "ls") throw usage(`use --json with ports ${verb}`);
  if (text === undefined) {
    throw usage(`use ports ${verb}: TARGET is missing`, ["a TARGET is a PID, a name of ip netns, a path or fd:N"]);
  }
  if (more.length > 0) throw usage(`use ports ${verb} with more than one target`);
  const { id, owner } = identifyTarget(parseTarget(text));
  const reply = ask(id, owner, request);
  if (!reply) {
    throw new PenneError(`find a penne that serves "${text}": there is none that you may ask`, {
      hints: ["penne run and penne attach answer to the user who started them, and to root"],
    });
  }
  if (!reply.ok) throw errorOf(reply.error, verb);
  say(Deno.stdout, show(reply, options.json));
  return 0;
}

/** `penne ports`. */
export const start = command(SPEC, main, FAILURE);
