// `penne flows`: shows the flows of a namespace which a running penne serves, and what they have reached.

import { POLL } from "../../../ffi/core/consts.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { usage } from "../../base/errors.ts";
import { toJson, visible } from "../../base/visible.ts";
import { FlowListMaker, FlowReader, type FlowTarget } from "../../control/flow_client.ts";
import type { FlowCounts, FlowDestination, FlowEnd, FlowEvent, FlowList, FlowRecord } from "../../flows/contract.ts";
import { identifyTarget } from "../../netns/open.ts";
import { parseTarget } from "../../netns/target.ts";
import { command } from "../common/command.ts";
import { print } from "../common/print.ts";
import { formatTable, terminalWidth } from "./table.ts";
import type { CommandSpec, ParsedOptions } from "../options/table.ts";

/** What `penne flows` accepts. */
export const SPEC = {
  name: "flows",
  synopsis: "[OPTIONS] TARGET",
  mixed: true,
  summary:
    "Show the flows of a network namespace which a running penne serves: TCP connections, UDP and ping, with their names and bytes, and all that was reached so far. TARGET is the PID of a process in it, a name of ip netns, a path, or fd:N.",
  groups: [
    {
      title: "Output",
      options: [
        {
          name: "follow",
          short: "f",
          help: "Print each flow at its start and at its end, until that penne serves it no longer",
        },
        { name: "json", help: "Print one JSON object; with --follow, one a line" },
      ],
    },
  ],
  exitCodes: [
    ["0", "done, or the reader is gone"],
    ["1", "failure: as where no penne serves it which you may ask"],
    ["2", "usage error"],
  ],
  examples: [
    ["penne flows 4711", "the flows of the namespace of process 4711, and what they have reached"],
    ["penne flows --follow --json 4711", "each flow when it begins and when it ends, for a program"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

const FAILURE = 1;
/** What is done, in errors. */
const WRITE = "write the flows";

/** `penne flows`. */
export const start = command(SPEC, main, FAILURE);

function endText({ address, port }: FlowEnd): string {
  if (port === null) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The other end, and what it stands for. */
function outsideText({ direction, outside, reached }: FlowRecord): string {
  const [seen, real] = [endText(outside), endText(reached)];
  return direction === "in" || seen === real ? seen : `${seen} (${real})`;
}

const FLOW_HEAD = ["PROTO", "DIR", "INSIDE", "OUTSIDE", "NAME", "STATE", "AGE", "SENT", "RECEIVED"];
const FLOW_RIGHT = [false, false, false, false, false, false, true, true, true];
const TOTAL_HEAD = ["PROTO", "DIR", "REACHED", "NAME", "FLOWS", "ACTIVE", "REFUSED", "SENT", "RECEIVED", "LAST"];
const TOTAL_RIGHT = [false, false, false, false, true, true, true, true, true, true];

function flowCells(flow: FlowRecord): string[] {
  const { protocol, direction, inside, name, state, age, sent, received } = flow;
  return [
    ...[protocol, direction, endText(inside), outsideText(flow), name ?? "-", state],
    ...[`${Math.floor(age)}s`, `${sent}`, `${received}`],
  ];
}

function countCells({ flows, active, refused, sent, received }: FlowCounts): string[] {
  return [flows, active, refused, sent, received].map(String);
}

function totalCells(total: FlowDestination): string[] {
  const { protocol, direction, name, last } = total;
  return [protocol, direction, endText(total), name ?? "-", ...countCells(total), last.replace(/\.\d+Z$/, "Z")];
}

function listText({ flows, destinations, other }: FlowList): string {
  const room = terminalWidth();
  const rows = destinations.map((total) => ({ cells: totalCells(total) }));
  if (other.flows > 0) rows.push({ cells: ["other", "-", "-", "-", ...countCells(other), "-"] });
  const live = formatTable(FLOW_HEAD, FLOW_RIGHT, flows.map((flow) => ({ cells: flowCells(flow) })), room);
  return `${live}\n${formatTable(TOTAL_HEAD, TOTAL_RIGHT, rows, room)}`;
}

/** An event as a line for people. */
function eventText(event: FlowEvent): string {
  if (event.event === "lost") return `lost: time=${event.time} count=${event.count}`;
  const { flow, protocol, direction, inside, outside, reached, name, sent, received, age } = event;
  const [seen, real] = [endText(outside), endText(reached)];
  const words = [
    ...[`time=${event.time}`, `flow=${flow}`, `protocol=${protocol}`, `direction=${direction}`],
    ...[`inside=${endText(inside)}`, `outside=${seen}`],
    ...direction === "out" && seen !== real ? [`reached=${real}`] : [],
    ...name === null ? [] : [`name=${name}`],
    ...event.event === "end" ? [`how=${event.how.replace(" ", "-")}`, `age=${age}`] : [],
    ...event.event === "end" || sent + received > 0 ? [`sent=${sent}`, `received=${received}`] : [],
  ];
  return visible(`${event.event}: ${words.join(" ")}`);
}

function list(target: FlowTarget, json: boolean): void {
  using reader = FlowReader.open(target, "flows.list");
  const maker = new FlowListMaker();
  let whole: FlowList | null = null;
  while (!whole) whole = maker.take(reader.next());
  print(WRITE, json ? `${toJson(whole)}\n` : listText(whole));
}

/** Prints events until that penne closes the connection, or the reader of stdout is gone. */
function follow(target: FlowTarget, json: boolean): void {
  using reader = FlowReader.open(target, "flows.follow");
  const text = json ? toJson : eventText;
  for (;;) {
    // That a pipe has no reader any more shows before anything is written to it.
    const [come, out = 0] = poll([{ fd: reader.socket, events: POLL.IN }, { fd: Fd.borrow(1), events: 0 }], -1);
    if (out & (POLL.ERR | POLL.HUP)) return;
    if (!come) continue; // a signal
    const events = reader.next() as FlowEvent[] | null;
    if (!events) return;
    if (!print(WRITE, events.map((event) => `${text(event)}\n`).join(""))) return;
  }
}

/** Asks the penne that serves the target; returns the exit code. */
function main({ operands, tail, follow: follows, json }: Options): number {
  const [text, ...more] = [...operands, ...tail ?? []];
  if (text === undefined) {
    throw usage("use flows: TARGET is missing", ["a TARGET is a PID, a name of ip netns, a path or fd:N"]);
  }
  if (more.length > 0) throw usage("use flows with more than one target");
  const target = { text, ...identifyTarget(parseTarget(text)) };
  (follows ? follow : list)(target, json);
  return 0;
}
