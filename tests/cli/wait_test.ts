// `penne wait`: what it waits for, and what it does afterwards.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { asUser, penne, sh, test, until } from "../lib/helpers.ts";
import { type Daemon, must, NetLab } from "../lib/netlab.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;

/** Starts `penne wait`, and returns when it is armed. */
async function armed(lab: NetLab, args: string[]): Promise<Daemon> {
  const daemon = lab.start([penne(), "wait", "--ready-fd", "1", ...args]);
  await until("it is armed", () => daemon.output().startsWith("ready\n"));
  return daemon;
}

test("Waits until a name is a mounted namespace, not merely a file", NEEDS, async () => {
  await using lab = new NetLab();
  const path = `/run/netns/penne-${Deno.pid}-later`;
  await Deno.mkdir("/run/netns", { recursive: true });
  lab.defer(() => sh(["sh", "-c", `umount ${path}; rm -f ${path}`]).then(() => {}));
  const daemon = await armed(lab, ["--for", "present", path.slice("/run/netns/".length)]);
  let over = false;
  daemon.ended.then(() => over = true);
  await Deno.writeTextFile(path, "");
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert(!over, "a plain file is not a namespace");
  await must(["unshare", "--net", "mount", "--bind", "/proc/self/ns/net", path]);
  assertEquals((await daemon.ended).code, 0);
});

test("Waits for a name in a directory that does not exist yet", NEEDS, async () => {
  await using lab = new NetLab();
  const top = await Deno.makeTempDir({ prefix: "penne-wait-" });
  lab.defer(() => sh(["sh", "-c", `umount ${top}/a/b/name; rm -r ${top}`]).then(() => {}));
  const daemon = await armed(lab, ["--for", "present", `${top}/a/b/name`]);
  await Deno.mkdir(`${top}/a/b`, { recursive: true });
  await Deno.writeTextFile(`${top}/a/b/name`, "");
  await must(["mount", "--bind", "/proc/self/ns/uts", `${top}/a/b/name`]); // a namespace of any kind
  assertEquals((await daemon.ended).code, 0);
});

test("A name that disappears and comes back counts as gone", NEEDS, async () => {
  await using lab = new NetLab();
  const name = await lab.netns("again");
  const daemon = await armed(lab, [name, "--for=gone"]);
  daemon.child.kill("SIGSTOP");
  await must(["sh", "-c", `ip netns del ${name}; ip netns add ${name}`]);
  daemon.child.kill("SIGCONT");
  assertEquals((await daemon.ended).code, 0);
});

test("Waits for all of several targets, each once", NEEDS, async () => {
  await using lab = new NetLab();
  const [a, b] = [await lab.netns("a"), await lab.netns("b")];
  const process = lab.start(["sleep", "1000"]);
  const daemon = await armed(lab, ["--for", "gone", a, b, `${process.child.pid}`]);
  let over = false;
  daemon.ended.then(() => over = true);
  await must(["ip", "netns", "del", b]);
  process.child.kill("SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, 200));
  await must(["ip", "netns", "add", b]);
  assert(!over);
  await must(["ip", "netns", "del", a]);
  assertEquals((await daemon.ended).code, 0);
});

test("Targets that already have the state end it at once", NEEDS, async () => {
  await using lab = new NetLab();
  const name = await lab.netns("here");
  for (
    const args of [["--for", "present", name], ["--for", "gone", "penne-no-such-name"], ["--for", "present", "1"], [
      "--for",
      "gone",
      "4194303",
    ]]
  ) {
    assertEquals((await sh([penne(), "wait", ...args])).code, 0, args.join(" "));
  }
});

test("After the time-out the exit code is 124, and the hook has not run", NEEDS, async () => {
  await using lab = new NetLab();
  const name = await lab.netns("stays");
  const start = performance.now();
  const { code, stdout } = await sh([penne(), "wait", name, "--for", "gone", "--timeout", "0.3", "--", "echo", "ran"]);
  assertEquals([code, stdout], [124, ""]);
  assert(performance.now() - start >= 300);
});

test("The hook replaces penne", NEEDS, async () => {
  const hook = async (...words: string[]) => await sh([penne(), "wait", "--for", "present", "1", "--", ...words]);
  assertEquals((await hook("sh", "-c", "echo out; exit 7")).stdout, "out\n");
  assertEquals((await hook("sh", "-c", "exit 7")).code, 7);
  assertEquals((await hook("sh", "-c", "kill -TERM $$")).signal, "SIGTERM");
  assertEquals((await hook("sh", "-c", "yes | head -n 1; trap | grep -c PIPE")).stdout, "y\n0\n");
  assertEquals((await hook("no-such-program")).code, 127);
  assertEquals((await hook("/etc/passwd")).code, 126);
});

/** Waits for the end of a new network namespace through descriptor 7; `as` precedes penne's command line. */
async function waitForEnd(as: readonly string[], unshare: readonly string[]): Promise<void> {
  await using lab = new NetLab();
  const process = lab.start([...unshare, "sleep", "1000"]);
  const own = await Deno.readLink("/proc/self/ns/net");
  await until("it has its namespace", () => Deno.readLinkSync(`/proc/${process.child.pid}/ns/net`) !== own);
  const script = `exec 7</proc/${process.child.pid}/ns/net; exec "$@" wait --ready-fd 1 --for gone fd:7`;
  const daemon = lab.start(["sh", "-c", script, "sh", ...as, penne()]);
  await until("it is armed", () => daemon.output().startsWith("ready\n"));
  let over = false;
  daemon.ended.then(() => over = true);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert(!over);
  process.child.kill("SIGKILL");
  assertEquals((await daemon.ended).code, 0);
}

test("Waits for the end of a namespace without a name", NEEDS, () => waitForEnd([], ["unshare", "--net"]));

test("A user waits for the end of a network namespace without a name, even of root's", [...NEEDS, "user"], async () => {
  await waitForEnd(asUser([]), ["unshare", "--net"]);
  await waitForEnd(asUser([]), asUser(["unshare", "--user", "--map-root-user", "--net"]));
});

test("The end of another namespace without a name is seen by root since Linux 6.18", [...NEEDS, "user"], async () => {
  const script = 'exec 7</proc/self/ns/uts; exec unshare --uts "$@" wait --timeout 0.1 --for gone fd:7';
  const user = await sh(["sh", "-c", script, "sh", ...asUser([penne()])]);
  assertEquals([user.code, user.stderr.split("\n")[0]], [
    1,
    'penne: cannot watch "fd:7": its end can be seen since Linux 6.18, and only by root',
  ]);
});

test("Wrong command lines are usage errors", async () => {
  for (
    const args of [
      ["x"],
      ["--for", "gone"],
      ["--for", "never", "x"],
      ["--for", "gone", "x", "--"],
      ["--for", "gone", "x", "--timeout", "soon"],
      ["--for", "gone", "--timeout", "-1", "x"],
      ["--for", "gone", "a\u0000b".replace("\u0000", "/../") + "\n", "fd:x"],
      ["--for", "gone", "netns:a/b"],
    ]
  ) {
    const { code, stderr } = await sh([penne(), "wait", ...args]);
    assertEquals(code, 2, `${args.join(" ")}: ${stderr}`);
    assertMatch(stderr, /^penne: cannot /);
  }
});
