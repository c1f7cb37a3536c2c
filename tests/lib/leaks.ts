// Finds what a test leaves behind: descriptors of this process, processes, mounts and namespaces.
//
// Descriptors and the test's own processes are always compared. Mounts, namespaces and unrelated agents belong to the
// whole machine, so they are compared only where nothing else runs: in CI, or with PENNE_LEAKS=all. With PENNE_LEAKS=own
// they are not: packaging/test.ts compares them after tests that run beside others.

import "./preload.ts";

export const ALL = (Deno.env.get("PENNE_LEAKS") ?? (Deno.env.get("CI") === "true" ? "all" : "own")) === "all";
/** Children inherit this variable, so a process that has left the family is still recognised by it. */
const MARK = "PENNE_TEST_RUN";
if (!Deno.env.get(MARK)) Deno.env.set(MARK, String(Deno.pid));
/** A run that is a part of this one has this mark and words behind a dot. */
const MARKED = new RegExp(`(?:^|\\0)${MARK}=${Deno.env.get(MARK)}(?:\\0|\\.|$)`);

/** The environment of a run that is a part of this one, with a name of its own. */
export function markOfPart(name: string): Record<string, string> {
  return { [MARK]: `${Deno.env.get(MARK)}.${name}` };
}

/** Directories that the first `ip netns add` and the first `penne keep` after boot mount on themselves, for good. */
const STANDING: ReadonlySet<string> = new Set(["/run/netns", "/run/penne/ns"]);

/** Everything that can leak, at one moment: a key that tells one thing from the next, and words for the reader. */
export type Snapshot = Map<string, string>;

/** Flag of a thread of the kernel, in /proc/PID/stat. */
const PF_KTHREAD = 0x200000;

/** Room for what is read of a file in /proc: a process of somebody else's may have gigabytes of arguments. */
const ROOM = new Uint8Array(1 << 20);

/** The text of a file in /proc, or its beginning; empty if the process has ended or may not be inspected. */
export function textOf(path: string): string {
  try {
    using file = Deno.openSync(path);
    let length = 0;
    for (let n; length < ROOM.length && (n = file.readSync(ROOM.subarray(length)));) length += n;
    return new TextDecoder().decode(ROOM.subarray(0, length));
  } catch {
    return "";
  }
}

/** Whether a process is of this run of the tests, by its environment. */
export function isMarked(pid: number): boolean {
  return MARKED.test(textOf(`/proc/${pid}/environ`));
}

function linkOf(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return "";
  }
}

function addDescriptors(found: Snapshot): void {
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const target = linkOf(`/proc/self/fd/${name}`);
    // The descriptor that reads this very directory has no target any more.
    if (target) found.set(`descriptor ${name} ${target}`, `descriptor ${name} (${target})`);
  }
}

function addProcesses(found: Snapshot, all: boolean): void {
  const family = new Set([Deno.pid]);
  const others: { pid: number; ppid: number; key: string; words: string; own: boolean }[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = textOf(`/proc/${name}/stat`);
    const end = stat.lastIndexOf(")");
    const fields = stat.slice(end + 2).split(" ");
    if (!stat || fields[0] === "Z" || fields[0] === "X" || Number(fields[6]) & PF_KTHREAD) continue;
    const command = textOf(`/proc/${name}/cmdline`).replaceAll("\0", " ").trim() ||
      stat.slice(stat.indexOf("("), end + 1);
    others.push({
      pid: Number(name),
      ppid: Number(fields[1]),
      key: `process ${name} ${fields[19]}`,
      words: `process ${name} (${command})`,
      own: isMarked(Number(name)) ||
        ALL && /^\/memfd:penne-agent/.test(linkOf(`/proc/${name}/exe`)),
    });
  }
  // A child may have a smaller number than its parent, so this goes on until nobody new is found.
  for (let before = 0; before !== family.size;) {
    before = family.size;
    for (const { pid, ppid, own } of others) if (own || family.has(ppid)) family.add(pid);
  }
  for (const { pid, key, words } of others) {
    if (pid === Deno.pid || !family.has(pid)) continue;
    found.set(key, words);
    if (all) addNamespaces(found, pid);
  }
}

function addNamespaces(found: Snapshot, pid: number | "self"): void {
  for (const type of ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]) {
    const target = linkOf(`/proc/${pid}/ns/${type}`);
    if (target) found.set(`namespace ${target}`, `namespace ${target}`);
  }
}

function addMounts(found: Snapshot): void {
  for (const line of textOf("/proc/self/mountinfo").split("\n")) {
    const [id, , , root, point] = line.split(" ");
    if (point && !STANDING.has(point)) found.set(`mount ${id} ${point}`, `mount ${point} (of ${root})`);
  }
}

/** What exists now; with `all`, on the whole machine. */
export function snapshot(all = ALL): Snapshot {
  const found: Snapshot = new Map();
  addDescriptors(found);
  addNamespaces(found, "self");
  addProcesses(found, all);
  if (all) addMounts(found);
  return found;
}

/** Descriptions of everything that only the later snapshot holds. */
export function difference(before: Snapshot, after: Snapshot): string[] {
  return [...after].filter(([key]) => !before.has(key)).map(([, words]) => words);
}

/**
 * Runs a test and fails if it leaves something behind.
 *
 * A process that has just been killed takes a moment to end, so the test has `patience` milliseconds to become clean.
 *
 * @throws {Error} If something is left; the message names all of it.
 */
export async function withoutLeaks(body: () => void | Promise<void>, patience = 60_000, all = ALL): Promise<void> {
  const before = snapshot(all);
  await body();
  const end = Date.now() + patience;
  for (;;) {
    const left = difference(before, snapshot(all));
    if (!left.length) return;
    if (Date.now() > end) throw new Error(`this test leaves behind: ${left.join(", ")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
