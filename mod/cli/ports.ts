// `penne ports`: shows and changes the ports of a namespace which a running penne serves.

import { usage } from "../base/errors.ts";
import { ask } from "../control/client.ts";
import { addRequest, deleteRequest, failureError, notServed, showServed } from "../control/failure.ts";
import type { Reply, Request } from "../control/message.ts";
import type { PortRequest } from "../forward/request.ts";
import { identifyTarget } from "../netns/open.ts";
import { parseTarget } from "../netns/target.ts";
import { command } from "./common/command.ts";
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
    "Show (ls), open (add) or close (del) ports that lead into a network namespace which a running penne serves, or out of it. TARGET is the PID of a process in it, a name of ip netns, a path, or fd:N.",
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

/** Options about what comes in, which hold for all ports of a penne. */
const AT_START = PORT_OPTIONS.filter(({ name }) => !/^(tcp|udp)-|^(freebind|publish)$/.test(name));

/** The ports of a command line, of which there must be one at least. */
function portsOf(verb: string, options: Options): PortRequest {
  const needless = AT_START.find(({ name }) => options[name])?.name;
  if (needless) throw usage(`use --${needless} with ports ${verb}: it is for the start of that penne`);
  const request = portRequest(options, undefined);
  if (request.rules.length + request.outward.length > 0) return request;
  throw usage(`use ports ${verb}: no port is named`, ["--tcp-ports and the like name some, as in -t 8080:80"]);
}

function requestOf(verb: string, options: Options): Request {
  switch (verb) {
    case "ls": {
      const needless = firstGiven(options, PORT_OPTIONS);
      if (needless) throw usage(`use --${needless} with ports ls`);
      return { call: "ports.list" };
    }
    case "add":
      return addRequest(portsOf(verb, options));
    case "del":
      if (options.freebind) throw usage("use --freebind with ports del");
      return deleteRequest(portsOf(verb, options));
    default:
      throw usage(`use ports ${verb}: there is no such action`, ["the actions are ls, add and del"]);
  }
}

/** One line for each rule. */
function show({ rules = [] }: Reply & { ok: true }, json: boolean): string {
  return rules.map((rule) => `${json ? JSON.stringify(rule) : showServed(rule)}\n`).join("");
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
  if (!reply) throw notServed(text);
  if (!reply.ok) throw failureError(reply.error, verb === "add" ? "add" : "delete");
  say(Deno.stdout, show(reply, options.json));
  return 0;
}

/** `penne ports`. */
export const start = command(SPEC, main, FAILURE);
