// Idle agents and holders: what the kernel says of them, what they can still do, and that they can do nothing else.

import { assert, assertEquals, assertMatch } from "@std/assert";
import "../lib/preload.ts";
import { Agent } from "../../ffi/agent/agent.ts";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { numbersOf, type SyscallName } from "../../ffi/core/syscalls.ts";
import { call } from "../../ffi/core/task.ts";
import { pipe } from "../../ffi/sys/file.ts";
import { waitChild } from "../../ffi/sys/process.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { endAgents } from "../../mod/agents/enclosure.ts";
import { AGENT_FILTERS, type AgentRole } from "../../mod/confine/agent_filters.ts";
import { AGENT_ROLES, type Duties } from "../../mod/confine/agent_rules.ts";
import { confineAgent, confineServing, holderFilter } from "../../mod/confine/agents.ts";
import { makeStrictFilter, VERDICT } from "../../mod/confine/filter.ts";
import { permittedCalls } from "../../mod/confine/permitted.ts";
import { filtered } from "../findings/lab/hosts.ts";
import { penne, sh, test, until } from "../lib/helpers.ts";
import { type Daemon, NetLab } from "../lib/netlab.ts";
import { attempts, isFiltered, statusOf } from "./confined.ts";
import { inject } from "./inject.ts";
import { verdictOf } from "./interpreter.ts";

const LIMIT = 12;
/** Capabilities that agents keep which have all. */
const KEEPS: Readonly<Record<AgentRole, bigint>> = {
  init: 0n,
  killer: 1n << 5n, // CAP_KILL
  terminal: 1n << 5n,
  holder: 0n,
  follow: 1n << 12n | 1n << 21n, // CAP_NET_ADMIN, CAP_SYS_ADMIN
  ports: 1n << 10n | 1n << 13n, // CAP_NET_BIND_SERVICE, CAP_NET_RAW
};
const SIGSYS = 31;

const number = numbersOf(Deno.build.arch);

/** Roles of agents, and what they have to do at their end. */
const DUTIES: Partial<Record<AgentRole, Duties>> = {
  init: { kills: false, terminal: false },
  killer: { kills: true, terminal: false },
  terminal: { kills: true, terminal: true },
};
const ROLES = Object.keys(AGENT_ROLES) as AgentRole[];

/** A confined process that waits. */
interface Waiting {
  readonly agent: Agent;
  /** The call that it waits in. */
  readonly waits: SyscallName;
}

/** Starts one in a role. */
async function waiting(role: AgentRole): Promise<Waiting> {
  const agent = Agent.spawn();
  if (role === "holder") {
    agent.hold("a test", holderFilter());
    await until("it is confined", () => isFiltered(agent.pid));
    return { agent, waits: "rt_sigtimedwait" };
  }
  const duties = DUTIES[role];
  if (!duties) {
    if (role !== "follow" && role !== "ports") throw new Error(role);
    confineServing(agent, role, KEEPS[role], () => {});
    return { agent, waits: "recvmsg" };
  }
  agent.reap(0);
  confineAgent(agent, role, duties);
  return { agent, waits: "ppoll" };
}

/** Ends one that nothing else has ended. */
function end({ agent }: Waiting): void {
  assert(!isReadable(agent.pidfd, 0));
  Deno.kill(agent.pid, "SIGKILL");
  endAgents([agent]);
}

/** Arguments for which a rule permits a call, and with which that does nothing. */
function harmless({ call, when = [] }: CallRule): bigint[] {
  const args = Array(6).fill(call === "wait4" ? 0n : -1n);
  for (const { argument, values } of when) args[argument] = BigInt(values[0]!);
  if (call === "ppoll") args[0] = args[1] = 0n, args[2] = 1n; // its time limit is at no address
  if (call === "wait4") args[0] = -1n, args[2] = 1n; // WNOHANG
  if (call === "clone") args[1] = 0n; // the address for the pidfd is none
  return args;
}

for (const role of ROLES) {
  const rules: readonly CallRule[] = AGENT_ROLES[role];

  test(`The filter at hand for the role ${role} is that of its rules, which permit few calls`, async () => {
    for (const arch of ["x86_64", "aarch64"] as const) {
      const program = makeStrictFilter(rules, arch);
      assertEquals(
        atob(AGENT_FILTERS[arch][role]),
        String.fromCharCode(...program),
        "deno run -A packaging/filters.ts",
      );
      const permitted = rules.map(({ call }) => numbersOf(arch)[call]);
      for (const nr of [...Array(1024).keys(), 0x3fff_ffff, 0x4000_0000 + permitted[0]!, 0xffff_ffff]) {
        const expected = permitted.includes(nr) ? VERDICT.ALLOW : VERDICT.KILL;
        const rule = rules.find(({ call }) => numbersOf(arch)[call] === nr);
        assertEquals(verdictOf(program, arch, { number: nr, args: rule ? harmless(rule) : [] }), expected, `${nr}`);
        if (rule?.when) assertEquals(verdictOf(program, arch, { number: nr, args: Array(6).fill(77n) }), VERDICT.KILL);
      }
    }
    assert(permittedCalls(rules).length <= LIMIT);
    for (const { why, test } of rules) {
      assert(why !== "");
      assert((await Deno.stat(new URL(`../../${test}`, import.meta.url))).isFile, test);
    }
  });

  test(`The kernel says that an agent in the role ${role} has given up what it needs no more`, ["root"], async () => {
    const one = await waiting(role);
    const status = statusOf(one.agent.pid);
    for (const name of ["CapEff", "CapPrm"]) assertEquals(BigInt(`0x${status[name]}`), KEEPS[role], name);
    for (const name of ["CapBnd", "CapInh", "CapAmb"]) assertEquals(BigInt(`0x${status[name]}`), 0n, name);
    assertEquals([status["Seccomp"], status["NoNewPrivs"]], ["2", "1"]);
    end(one);
  });

  test(`Each call that the role ${role} may make passes its filter, and it goes on`, ["root"], async () => {
    const one = await waiting(role);
    for (const rule of rules.filter(({ call }) => call !== "exit_group")) {
      const result = inject(one.agent.pid, number[rule.call], harmless(rule), undefined, one.waits);
      assert(result !== null, rule.call);
    }
    end(one);
    const last = await waiting(role);
    assertEquals(inject(last.agent.pid, number.exit_group, [7n], undefined, last.waits), null);
    assertEquals(waitChild(last.agent.pid).code, 7);
    last.agent.close();
  });

  test(`Whoever takes an agent in the role ${role} over can do nothing else`, ["root"], async () => {
    const victim = new Deno.Command("sleep", { args: ["1000"] }).spawn();
    const kills = DUTIES[role]?.kills;
    for (const { what, number, args } of attempts(victim.pid)) {
      if (kills && what.startsWith("pidfd_")) continue; // which is what it is there for
      const { agent, waits } = await waiting(role);
      assertEquals(inject(agent.pid, number, args, undefined, waits), null, what);
      assertEquals(waitChild(agent.pid).signal, SIGSYS, what);
      agent.close();
    }
    victim.kill("SIGTERM");
    assertEquals((await victim.status).signal, "SIGTERM"); // nothing else ended it
  });
}

test("An agent becomes a holder without a filter, too, if nothing comes from its standard input", async () => {
  const agent = Agent.spawn();
  const [reader, writer] = pipe(); // as a terminal
  using _writer = writer;
  call(agent, "dup3", reader, 0, 0);
  reader.close();
  agent.hold("a test");
  await until("it is one", () => statusOf(agent.pid)["Name"] === "penne-holder");
  Deno.kill(agent.pid, "SIGTERM");
  assertEquals(waitChild(agent.pid).code, 0);
  agent.close();
});

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;

test("Where the kernel refuses filters, the log says so of each agent and holder, and all works", [
  ...NEEDS,
  "package:gcc",
], async () => {
  const dir = await Deno.makeTempDir({ prefix: "penne-confine-" });
  try {
    const debug = ["--log-level", "debug"];
    const run = await sh(await filtered(["seccomp=1"], [penne(), "run", ...debug, "--net=none", "--", "true"]));
    assertEquals(run.code, 0, run.stderr);
    assertMatch(run.stderr, /the init is not confined: the kernel refuses a filter/);
    const place = ["--dir", `${dir}/kept`];
    const argv = [penne(), "keep", ...place, "--unshare", "pid,mnt", ...debug, "one", "--", "true"];
    const keep = await sh(await filtered(["seccomp=1"], argv));
    assertEquals(keep.code, 0, keep.stderr);
    assertMatch(keep.stderr, /the holder is not confined: the kernel refuses a filter/);
    assertEquals(logged(keep.stderr, "holder"), null);
    assertEquals((await sh([penne(), "drop", ...place, "one"])).code, 0);
  } finally {
    await sh(["sh", "-c", `umount ${dir}/kept/ns; rm -r ${dir}`]);
  }
});

/** Processes below one, by their names. */
function below(pid: number): Map<string, number> {
  const found = new Map<string, number>();
  const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim();
  for (const child of children.split(" ").filter(Boolean).map(Number)) {
    found.set(statusOf(child)["Name"]!, child);
    for (const [name, one] of below(child)) found.set(name, one);
  }
  return found;
}

/** What a role was logged to be permitted. */
function logged(log: string, role: string): string[] | null {
  const found = new RegExp(`confined as ${role}: \\d+ system calls\\n(.*)\\n`).exec(log);
  return found ? found[1]!.split(" ") : null;
}

test("The agents of run and enter are confined once the command runs, and their lists are logged", NEEDS, async () => {
  await using lab = new NetLab();
  const debug = ["--log-level", "debug"];
  const sleep = ["--", "sh", "-c", "echo started; exec sleep 1000"];
  const started = async (argv: string[]) => {
    const daemon = lab.start(argv);
    await until("the command runs", () => daemon.output().includes("started"));
    return daemon;
  };
  const run = await started([penne(), "run", ...debug, "--net=none", ...sleep]);
  const { "penne-agent": init, sleep: command } = Object.fromEntries(below(run.child.pid));
  const bare = await started([penne(), "run", ...debug, "--net=host", "--unshare", "mnt", ...sleep]);
  const enter = await started([penne(), "enter", ...debug, `${command}`, ...sleep]);
  const kinds: [Daemon, string, AgentRole, number | undefined][] = [
    [run, "init", "init", init],
    ...[bare, enter].flatMap((daemon): typeof kinds => {
      const { "penne-guard": guard, "penne-agent": agent } = Object.fromEntries(below(daemon.child.pid));
      return [[daemon, "guard", "killer", guard], [daemon, daemon === enter ? "init" : "agent", "killer", agent]];
    }),
  ];
  for (const [daemon, name, role, pid] of kinds) {
    assertEquals(logged(daemon.errors(), name), permittedCalls(AGENT_ROLES[role]), daemon.errors());
    assert(isFiltered(pid!), name);
    assertEquals(statusOf(pid!)["NoNewPrivs"], "1");
  }
  // The command has inherited nothing of it.
  assertEquals([statusOf(command!)["Seccomp"], statusOf(command!)["NoNewPrivs"]], ["0", "0"]);
});

test("--no-confine leaves agents and holders as they are, and warns each time", NEEDS, async () => {
  await using lab = new NetLab();
  const warning = /^penne: warning: not confined \(--no-confine\).*\n$/;
  const daemon = lab.start([
    penne(),
    "run",
    "--no-confine",
    "--net=none",
    "--",
    "sh",
    "-c",
    "echo started; sleep 1000",
  ]);
  await until("the command runs", () => daemon.output().includes("started"));
  assertMatch(daemon.errors(), warning);
  assertEquals(isFiltered(below(daemon.child.pid).get("penne-agent")!), false);
  const dir = await Deno.makeTempDir({ prefix: "penne-confine-" });
  lab.defer(async () => {
    for (const name of ["one", "two"]) await sh([penne(), "drop", "--dir", `${dir}/kept`, name]);
    await sh(["sh", "-c", `umount ${dir}/kept/ns; rm -r ${dir}`]);
  });
  for (const [name, options, confined] of [["one", [], true], ["two", ["--no-confine"], false]] as const) {
    const keep = [penne(), "keep", "--dir", `${dir}/kept`, "--unshare", "pid,mnt", "--log-level", "debug", name];
    const { code, stderr } = await sh([...keep, ...options, "--", "true"]);
    assertEquals(code, 0, stderr);
    assertEquals(logged(stderr, "holder"), confined ? permittedCalls(AGENT_ROLES.holder) : null);
    assertEquals(stderr.includes("not confined"), !confined, stderr);
    const { stdout } = await sh([penne(), "inspect", "--dir", `${dir}/kept`, "--json", name]);
    const { holder } = JSON.parse(stdout);
    assertEquals(isFiltered(typeof holder === "number" ? holder : holder.pid), confined, stdout);
  }
});
