// All pairs of filters, on each back end: a filtered watch emits what an unfiltered one emits, filtered afterwards.

import { assert, assertEquals } from "@std/assert";
import { Agent } from "../../ffi/agent/agent.ts";
import { CLONE } from "../../ffi/core/consts.ts";
import { call } from "../../ffi/core/task.ts";
import { Reactor } from "../../mod/reactor/reactor.ts";
import type { NamespaceId } from "../../mod/namespaces/id.ts";
import { openBackend } from "../../mod/watch/choose.ts";
import { CgroupIds } from "../../mod/watch/facts/cgroup.ts";
import { type BackendName, type EventKind, type Filter, slotType } from "../../mod/watch/facts/contract.ts";
import type { WatchEvent } from "../../mod/watch/facts/watch_event.ts";
import { type WatchRequest, WatchSession } from "../../mod/watch/session.ts";
import { Tracker } from "../../mod/watch/state/tracker.ts";
import { idOf } from "../cli/watch/lab/events.ts";
import { sh, test } from "../lib/helpers.ts";
import { NEEDS_OF_BACKEND } from "../lib/needs.ts";

const UID = 65534;
/** Seconds that each step lasts: some readings of /proc. */
const STEP: Readonly<Record<BackendName, number>> = { ebpf: 0.2, proc: 0.3, poll: 0.5 };
/** Milliseconds between two readings of /proc. */
const INTERVAL = 100;
/** Pairs at once that each have their own programs in the kernel: with more, each session would be late. */
const AT_ONCE = 23;

/** The scenario's shells: the tree's root, which starts the first and the second; and one outside of the tree. */
const SCRIPTS = {
  // Namespaces that end by an exit. That of pids is entered by a child of another name than its maker's.
  first: `read -r go
    unshare --net sleep $STEP
    setpriv --reuid ${UID} --clear-groups unshare --user --uts sleep $STEP
    unshare --pid sh -c 'sleep $STEP; :'
    unshare --uts sh -c 'echo $$ >$DIR/held; sleep $STEP; sleep $STEP; :'
    nsenter --net=/proc/$NET/ns/net sh -c 'sleep $STEP; unshare --ipc sleep $STEP; :'`,
  // In the control group: an orphan, and another user; what they hold ends after they have executed another program.
  second: `read -r go
    sh -c 'unshare --ipc sleep $STEP & exec sleep $STEP'
    sleep $STEP
    nsenter --net=/proc/$NET/ns/net setpriv --reuid ${UID} --clear-groups unshare --user --net sleep $STEP
    unshare --time sh -c 'sleep $STEP; :'`,
  // Outside: the last one in a namespace that the tree has made.
  outside: `read -r go
    until [ -s $DIR/held ]; do sleep 0.05; done
    nsenter --uts=/proc/$(cat $DIR/held)/ns/uts sh -c 'sleep $STEP; sleep $STEP; sleep $STEP; :'
    unshare --net sleep $STEP`,
};

class List {
  readonly events: WatchEvent[] = [];
  readonly full = false;
  readonly drained = true;
  put(event: WatchEvent): void {
    this.events.push(event);
  }
  flush(): void {}
}

/** What the scenario provides to filter by. */
interface Scenario {
  readonly root: number;
  readonly first: number;
  readonly second: number;
  readonly outside: number;
  readonly net: NamespaceId;
  readonly cgroup: string;
}

type Options = Filter & { readonly events?: ReadonlySet<EventKind> };

/** A value of each filter. */
function filtersOf({ root, first, net, cgroup }: Scenario): Readonly<Record<string, Options>> {
  return {
    type: { types: new Set(["net", "pid"]) },
    event: { events: new Set(["exec", "birth", "death"]) },
    pid: { pids: new Set([first]) },
    tree: { trees: new Set([root]) },
    comm: { comms: new Set(["unshare"]) },
    "other comm": { comms: new Set(["sh"]) },
    uid: { uids: new Set([UID]) },
    cgroup: { cgroups: new Set([new CgroupIds().of(cgroup)!]) },
    ns: { inums: new Set([net.inum]) },
  };
}

/** Filters the events of the whole scenario, as the manual describes the options; knows nothing of penne's own state. */
class Reference {
  #scenario: Scenario;
  /** Descendants of each process of the scenario, itself included. */
  #below = new Map<number, Set<number>>();
  #mine: WatchEvent[];

  constructor(all: readonly WatchEvent[], scenario: Scenario) {
    this.#scenario = scenario;
    const { root, first, second, outside, net } = scenario;
    for (const pid of [root, first, second, outside]) this.#below.set(pid, new Set([pid]));
    this.#below.get(root)!.add(first).add(second);
    for (const event of all) {
      if (event.event !== "fork") continue;
      for (const pids of this.#below.values()) if (pids.has(event.ppid)) pids.add(event.pid);
    }
    const pids = new Set([...this.#below.get(root)!, ...this.#below.get(outside)!]);
    const born = new Set([net.id]);
    this.#mine = all.filter((event) => {
      if (event.event === "birth" && pids.has(event.pid)) born.add(event.id);
      if (event.event === "death" || event.event === "name") return event.id !== null && born.has(event.id);
      return "pid" in event && pids.has(event.pid);
    });
  }

  /** Describes events without their times, and without the path of a control group, which is looked up later. */
  static #normal(events: readonly WatchEvent[]): string[] {
    return events.map((event) => JSON.stringify({ ...event, mono: 0, cgroup: null, container: null }));
  }

  /** Returns those of other events that are about the scenario. */
  part(events: readonly WatchEvent[]): string[] {
    const mine = new Set(Reference.#normal(this.#mine).map((text) => Reference.#about(text)));
    return Reference.#normal(events).filter((text) => mine.has(Reference.#about(text)));
  }

  /** Process, or namespace, that an event is about. */
  static #about(text: string): string {
    const { event, pid, id } = JSON.parse(text);
    return event === "death" || event === "name" ? `id ${id}` : `pid ${pid}`;
  }

  /** What the events of a filtered watch must be. */
  filtered(filter: Options): string[] {
    const { types, events, pids, trees, comms, uids, cgroups, inums } = filter;
    const { net, second, root } = this.#scenario;
    const conditional = pids ?? trees ?? comms ?? uids ?? cgroups;
    const inside = new Set<number>();
    const made = new Set<string | null>();
    const wanted = this.#mine.filter((event) => {
      const slot = "type" in event ? slotType(event.type) : null;
      if (event.event === "death" || event.event === "name") {
        if (types && !types.has(slot!)) return false;
        if (conditional || inums) {
          return made.has(event.id) || !conditional && event.id === net.id;
        }
        return true;
      }
      if (!("pid" in event)) return false;
      // A task is in the namespace by setns(2), or by its parent.
      if (event.event === "fork" && inside.has(event.ppid)) inside.add(event.pid);
      let touches = inside.has(event.pid);
      if (event.event === "ns" && event.type === "net") {
        touches ||= event.new?.id === net.id;
        if (event.new?.id === net.id) inside.add(event.pid);
        else inside.delete(event.pid);
      }
      // A birth follows its change.
      if (event.event === "birth" && event.type === "net" && this.#leftFor(event.id, net.id)) touches = true;
      if (types && slot && !types.has(slot)) return false;
      if (inums && !touches) return false;
      if (pids && !pids.has(event.pid) && !(event.event === "fork" && pids.has(event.ppid))) return false;
      if (trees && !this.#below.get(root)!.has(event.pid)) return false;
      if (comms && !comms.has(event.comm ?? "")) return false;
      if (uids && !uids.has(event.uid ?? -1)) return false;
      if (cgroups && !this.#below.get(second)!.has(event.pid)) return false;
      if (event.event === "birth") made.add(event.id);
      return true;
    });
    return Reference.#normal(wanted.filter(({ event }) => events?.has(event as EventKind) !== false));
  }

  /** Whether the change that made a namespace led from another one. */
  #leftFor(id: string | null, from: string | null): boolean {
    return this.#mine.some((event) => event.event === "ns" && event.new?.id === id && event.old?.id === from);
  }
}

/** Runs the scenario while sessions watch it; returns their events, the first one's without a filter. */
async function observe(
  backend: BackendName,
  choose: (scenario: Scenario) => readonly Options[],
): Promise<{ scenario: Scenario; lists: WatchEvent[][] }> {
  using owned = new DisposableStack();
  const directory = Deno.makeTempDirSync({ prefix: "penne-pairs-" });
  owned.defer(() => Deno.removeSync(directory, { recursive: true }));
  const agent = owned.use(Agent.spawn(CLONE.NEWNET));
  call(agent, "getpid");
  const net = idOf(agent.pid, "net");
  const mount = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(Deno.readTextFileSync("/proc/self/mountinfo"))![1]!;
  const cgroup = `${mount}/penne-pairs-${Deno.pid}-${backend}`;
  Deno.mkdirSync(cgroup);
  owned.defer(() => Deno.removeSync(cgroup));
  const env = { ...Deno.env.toObject(), DIR: directory, NET: `${agent.pid}`, STEP: `${STEP[backend]}` };
  for (const [name, script] of Object.entries(SCRIPTS)) Deno.writeTextFileSync(`${directory}/${name}`, script);
  await sh(["mkfifo", ...["first", "second", "outside"].map((name) => `${directory}/${name}.go`)]);
  const start = (script: string) =>
    new Deno.Command("sh", { args: ["-c", script], env, cwd: "/", stdin: "null", stderr: "null" }).spawn();
  const shell = (name: string) => `sh ${directory}/${name} <>${directory}/${name}.go`;
  const tree = start(
    `${shell("first")} & echo $! >${directory}/1; ${shell("second")} & echo $! >${directory}/2; wait`,
  );
  const outside = start(`exec ${shell("outside")}`);
  let ended = 0;
  for (const { status } of [tree, outside]) status.then(() => ended++);
  const numberIn = async (name: string) => {
    for (;;) {
      const number = Number(await Deno.readTextFile(`${directory}/${name}`).catch(() => ""));
      if (number > 0) return number;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const [first, second] = [await numberIn("1"), await numberIn("2")];
  Deno.writeTextFileSync(`${cgroup}/cgroup.procs`, `${second}`);
  await new Promise((resolve) => setTimeout(resolve, 200)); // the shells have executed, and wait
  const scenario = { root: tree.pid, first, second, outside: outside.pid, net, cgroup };
  const reactor = owned.use(new Reactor());
  const all = [{}, ...choose(scenario)];
  const lists = all.map(() => new List());
  const watched = backend === "ebpf" ? null : owned.use(watchOnce(backend, all, lists));
  if (!watched) {
    all.forEach((options: Options, i) => {
      const { events, ...filter } = options;
      const request: WatchRequest = { filter, events, backend, locate: true };
      owned.use(new WatchSession(reactor, request, lists[i]!)).start();
    });
  }
  for (const name of ["first", "second", "outside"]) Deno.writeTextFileSync(`${directory}/${name}.go`, "go\n");
  for (let after = 0; after < 150;) {
    if (!watched) reactor.turn(10);
    watched?.read();
    await new Promise((resolve) => setTimeout(resolve, watched ? 10 : 0));
    if (ended === 2) after++;
  }
  return { scenario, lists: lists.map(({ events }) => events) };
}

/**
 * Passes the facts of one back end that does not filter to a tracker for each filter: what two sessions read in /proc would
 * differ by itself. The ends and names of namespaces do not come from a back end.
 */
function watchOnce(
  backend: "proc" | "poll",
  all: readonly Options[],
  lists: readonly List[],
): Disposable & { read(): void } {
  const { backend: source } = openBackend({}, { backend, interval: INTERVAL, cgroups: true });
  const tasks = source.snapshot();
  const trackers = all.map(({ events, ...filter }, i) => {
    const tracker = new Tracker(backend, { filter, events, emit: (event) => lists[i]!.put(event) });
    tracker.load(tasks, []);
    return tracker;
  });
  let due = 0;
  return {
    read() {
      if (!source.fd && performance.now() < due) return;
      due = performance.now() + INTERVAL;
      source.read((fact) => trackers.forEach((tracker) => tracker.apply(fact)));
    },
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

/** Filters that are alone, and all pairs. */
function pairsOf(scenario: Scenario): readonly (readonly [name: string, options: Options])[] {
  const all = Object.entries(filtersOf(scenario));
  return all.flatMap(([a, one], i) => [
    [a, one] as const,
    ...all.slice(i + 1).filter(([b]) => !b.endsWith(a)).map(([b, other]) =>
      [`${a} × ${b}`, { ...one, ...other }] as const
    ),
  ]);
}

for (const backend of ["ebpf", "proc", "poll"] as const) {
  test(
    `${backend}: every pair of filters equals the unfiltered events, filtered afterwards`,
    ["root", ...NEEDS_OF_BACKEND[backend], "package:util-linux", "kernel:6.18"],
    async () => {
      const wrong: string[] = [];
      let [tried, seen] = [0, 0];
      const atOnce = backend === "ebpf" ? AT_ONCE : Infinity;
      for (let more = true, from = 0; more; from += atOnce) {
        let pairs: ReturnType<typeof pairsOf> = [];
        const { scenario, lists } = await observe(backend, (scenario) => {
          const all = pairsOf(scenario);
          pairs = all.slice(from, from + atOnce);
          more = from + pairs.length < all.length;
          return pairs.map(([, options]) => options);
        });
        const reference = new Reference(lists[0]!, scenario);
        pairs.forEach(([name, options], i) => {
          const expected = reference.filtered(options);
          const actual = reference.part(lists[i + 1]!);
          tried++;
          if (expected.length > 0) seen++;
          const [missing, extra] = [subtract(expected, actual), subtract(actual, expected)];
          if (missing.length + extra.length === 0) return;
          wrong.push(`${name}: ${missing.length} of ${expected.length} missing, ${extra.length} more`);
          wrong.push(
            ...missing.slice(0, 3).map((text) => `- ${text}`),
            ...extra.slice(0, 3).map((text) => `+ ${text}`),
          );
        });
      }
      assertEquals(wrong, []);
      assert(tried > 40 && seen > tried / 2, `only ${seen} of ${tried} pairs let anything pass`);
    },
  );
}

/** Returns the texts of a list that another one lacks, counting repetitions. */
function subtract(from: readonly string[], other: readonly string[]): string[] {
  const left = [...other];
  return from.filter((text) => {
    const i = left.indexOf(text);
    if (i >= 0) left.splice(i, 1);
    return i < 0;
  });
}
