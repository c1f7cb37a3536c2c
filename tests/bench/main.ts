// Measures penne beside its peers, or an earlier build of itself: `deno task bench [--rounds N] [--json FILE] [GROUP...]`.
//
// Figures depend on the machine and its load; look at the ratios and differences. Needs a C compiler; peers that are not
// installed are skipped. Run by root, it measures unprivileged programs as the test user.

import { parseArgs } from "@std/cli/parse-args";
import { compete, type Group, type Outcome, table } from "./harness.ts";

const GROUPS: Readonly<Record<string, Group>> = {
  startup: {
    title: "From the start of a program to its command's first instruction, and to the end",
    open: async () => await (await import("./startup.ts")).openStartup(),
  },
  start: {
    title: "What each command takes above a bare program of the same runtime",
    open: async () => await (await import("./start.ts")).openStart(),
  },
  agent: {
    title: "Memory of an agent, and its start in new namespaces",
    open: async () => await (await import("./agent.ts")).openAgent(),
  },
  "network-65520": {
    title: "The data path at MTU 65520 beside pasta and slirp4netns",
    open: async () => await (await import("./network.ts")).openNetwork(65520),
  },
  "network-1500": {
    title: "The data path at MTU 1500 beside pasta and slirp4netns",
    open: async () => await (await import("./network.ts")).openNetwork(1500),
  },
  "network-20ms": {
    title: "The same at a round-trip time of 20 ms, made by a relay that limits the throughput of all",
    open: async () => await (await import("./network.ts")).openNetwork(65520, 10),
  },
  follow: {
    title: "The data path while penne follows the host, beside --no-follow, also while the host changes",
    open: async () => await (await import("./follow/follow.ts")).openFollow(),
  },
  ports: {
    title: "Ports of the host that lead inside, beside two versions of pasta, socat and a server on the host",
    open: async () => await (await import("./ports.ts")).openPorts(),
  },
  ready: {
    title: "From the start of a program until a namespace's network is usable",
    open: async () => await (await import("./ready.ts")).openReady(),
  },
  leave: {
    title: "From the removal of a namespace's name or process until its server has ended",
    open: async () => await (await import("./leave.ts")).openLeave(),
  },
  memory: {
    title: "Memory of a process that serves namespaces, and of each further one",
    open: async () => await (await import("./memory.ts")).openMemory(),
  },
  watch: {
    title: "Watching namespaces: start, latency, and storms, beside forkstat and bpftrace",
    open: async () => await (await import("./watch.ts")).openWatch(),
  },
  "watch-rate": {
    title: "Watching namespaces: the highest rate at which nothing is lost",
    open: async () => await (await import("./watch.ts")).openWatchRate(),
  },
  enter: {
    title: "From the start of a program to its command's first instruction in namespaces that exist already",
    open: async () => await (await import("./enter.ts")).openEnter(),
  },
  command: {
    title: "The library's Command beside Deno.Command",
    open: async () => (await import("./library/command.ts")).openCommand(),
  },
  "confine-start": {
    title: "What confinement adds to a start, beside --no-confine",
    open: async () => await (await import("./paired/confine.ts")).openStartConfined(),
  },
  "confine-network": {
    title: "The data path and memory of a confined process, beside --no-confine",
    open: async () => await (await import("./paired/confine.ts")).openNetworkConfined(),
  },
  nsexec: {
    title: "A bootstrap by runc's protocol",
    open: async () => await (await import("./nsexec.ts")).openNsexec(),
  },
};

/** Groups that compare with an earlier build, by `--before`. */
const BEFORE_GROUPS: Readonly<Record<string, (before: string) => Group>> = {
  "before-start": (before) => ({
    title: "Starts beside those of an earlier build",
    open: async () => await (await import("./paired/before.ts")).openStartBefore(before),
  }),
  "before-network": (before) => ({
    title: "The data path beside that of an earlier build",
    open: async () => await (await import("./paired/before.ts")).openNetworkBefore(before),
  }),
  "before-storm": (before) => ({
    title: "Storms beside those that an earlier build watches",
    open: async () => await (await import("./paired/before.ts")).openStormBefore(before),
  }),
};

const DEFAULT_ROUNDS = 30;

const USAGE = [
  "usage: deno task bench [--rounds N] [--json FILE] [--before FILE] [GROUP...]",
  "",
  `  --rounds N   measurements of each contestant (${DEFAULT_ROUNDS})`,
  "  --json FILE  write all figures to FILE too",
  "  --before FILE  compare with an earlier build of penne: groups before-start, before-network, before-storm",
  "",
  "Groups, all by default:",
  ...Object.entries(GROUPS).map(([name, { title }]) => `  ${name.padEnd(13)}  ${title}`),
];

/** Reports a usage error and exits. */
function refuse(problem: string): never {
  console.error([`bench: ${problem}`, ...USAGE].join("\n"));
  Deno.exit(2);
}

/** The machine, without which figures mean nothing. */
function machine(): Record<string, string | number> {
  return {
    date: new Date().toISOString(),
    kernel: Deno.osRelease(),
    architecture: Deno.build.arch,
    processors: navigator.hardwareConcurrency,
    load: Deno.loadavg()[0]!.toFixed(2), // above a few tenths, the machine is busy with something else
    deno: Deno.version.deno,
  };
}

/** A group's entry in the JSON file. */
function record(name: string, facts: Readonly<Record<string, number>>, outcome: Outcome, lines: readonly string[]) {
  return { group: name, facts, contestants: outcome.results, conclusions: lines };
}

async function runGroup(name: string, group: Group, rounds: number): Promise<ReturnType<typeof record>> {
  await using contest = await group.open();
  console.log([`${name}: ${group.title}`, ...contest.conditions.map((line) => `  ${line}`), ""].join("\n"));
  const outcome = await compete(contest, rounds);
  for (const metric of contest.metrics) console.log([...table(contest, metric, outcome), ""].join("\n"));
  const lines = contest.conclude(outcome);
  console.log([...lines, ""].join("\n"));
  return record(name, contest.facts ?? {}, outcome, lines);
}

async function main(): Promise<number> {
  const known = ["rounds", "json", "before", "help"];
  const options = parseArgs(Deno.args, { string: ["rounds", "json", "before"], boolean: ["help"] });
  const { json, before, rounds: wanted = `${DEFAULT_ROUNDS}` } = options;
  if (options.help) {
    console.log(USAGE.join("\n"));
    return 0;
  }
  const unknown = Object.keys(options).find((name) => name !== "_" && !known.includes(name));
  if (unknown !== undefined) refuse(`unknown option ${unknown}`);
  if (!/^[1-9]\d{0,4}$/.test(`${wanted}`)) refuse(`"${wanted}" is not a number of rounds`);
  const compared = typeof before === "string"
    ? Object.fromEntries(Object.entries(BEFORE_GROUPS).map(([name, group]) => [name, group(before)]))
    : null;
  const groupsByName = compared ?? GROUPS;
  const names = options._.length ? options._.map(String) : Object.keys(groupsByName);
  const stranger = names.find((name) => !Object.hasOwn(groupsByName, name));
  if (stranger !== undefined) refuse(`unknown group "${stranger}"`);

  const rounds = Number(wanted);
  const about = machine();
  const words = Object.entries(about).map(([name, value]) => `${name} ${value}`);
  console.log(`${[...words, `${rounds} rounds`].join(", ")}\n`);
  const groups: ReturnType<typeof record>[] = [];
  let failed = false;
  for (const name of names) {
    try {
      groups.push(await runGroup(name, groupsByName[name]!, rounds));
    } catch (error) {
      // A group that cannot be set up must not stop the others.
      console.error(`bench: ${name}: ${error instanceof Error ? error.message : error}`);
      failed = true;
    }
  }
  if (typeof json === "string") {
    await Deno.writeTextFile(json, `${JSON.stringify({ machine: about, rounds, groups }, null, 2)}\n`);
  }
  return failed ? 1 : 0;
}

// When interrupted, the bench still cleans up at "unload"; the timer ends its own processes.
for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => Deno.exit(130));

Deno.exit(await main());
