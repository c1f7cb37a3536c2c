// Staleness: every row of snap-confine's table, with bases that change and sets that are in use.

import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { openKept } from "../../mod/kept/open.ts";
import { discards, type Vote, voteOn } from "../../mod/kept/record/stale.ts";
import { LOCK_LIMIT } from "../../mod/kept/store/lock.ts";
import { sh, test, until } from "../lib/helpers.ts";
import { Place } from "./place.ts";

test("voteOn() and discards() follow the table", () => {
  const recorded = { base: { path: "/b", device: "7:1" }, key: "k" };
  const now = (path: string, device: string) => ({ base: { path, device }, key: "k" });
  const rows: [Vote, { base?: { path: string; device: string }; key?: string }, typeof recorded | null][] = [
    ["no", now("/b", "7:1"), recorded],
    ["should", now("/b", "7:2"), recorded],
    ["must", now("/c", "7:1"), recorded],
    ["must", now("/c", "7:2"), recorded],
    ["must", { ...now("/b", "7:1"), key: "l" }, recorded],
    ["no", { key: "k" }, recorded],
    ["must", { key: "l" }, recorded],
    ["no", {}, recorded],
    ["no", now("/b", "7:1"), null], // nothing is recorded, and no device is known
  ];
  for (const [vote, wanted, was] of rows) {
    assertEquals(voteOn(was ?? { base: null, key: null }, wanted).vote, vote, JSON.stringify(wanted));
  }
  const unrecorded = { base: null, key: null, devices: ["7:1", "0:5"] };
  assertEquals(voteOn(unrecorded, now("/b", "7:1")).vote, "no");
  assertEquals(voteOn(unrecorded, now("/b", "7:2")).vote, "should");
  const votes: Vote[] = ["no", "should", "must"];
  assertEquals(votes.map((vote) => discards(vote, true)), [false, false, true]);
  assertEquals(votes.map((vote) => discards(vote, false)), [false, true, true]);
});

/** A base directory whose file system can be exchanged. */
class BaseDirectory implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "penne-base-" });
  #mounts = 0;

  async exchange(): Promise<void> {
    // Mounted on top of the last one: the same name, another device.
    const { code, stderr } = await sh(["mount", "-t", "tmpfs", "none", this.path]);
    if (code !== 0) throw new Error(stderr);
    this.#mounts++;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    while (this.#mounts-- > 0) await sh(["umount", this.path]);
    Deno.removeSync(this.path);
  }
}

test("keep with --base follows the table", ["root"], async (t) => {
  using place = new Place();
  await using base = new BaseDirectory();
  await using other = new BaseDirectory();
  await base.exchange();
  await other.exchange();
  let count = 0;
  const keep = (path: string) =>
    place.must("keep", "app", "--base", path, "--unshare", "uts", "--", "sh", "-c", `hostname n${++count}; echo made`);
  const id = async () => (await place.inspect("app"))?.namespaces.uts?.id;
  const enter = async () => {
    const child = new Deno.Command("nsenter", {
      args: [`--uts=${place.ns}/app.uts`, "sh", "-c", "echo in; read line; hostname"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await output.read()).value, "in\n");
    const leave = async () => {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode("\n"));
      await writer.close();
      const { value } = await output.read();
      await child.status;
      await output.cancel();
      return value;
    };
    return { pid: child.pid, leave };
  };
  let first: string | null | undefined;

  await t.step("same base, same device, unused: no, reuse", async () => {
    assertEquals(await keep(base.path), "made\n");
    first = await id();
    assertEquals(await keep(base.path), "");
    assertEquals(await id(), first);
  });
  await t.step("same base, same device, occupied: no, reuse", async () => {
    const guest = await enter();
    assertEquals(await keep(base.path), "");
    assertEquals(await id(), first);
    await guest.leave();
  });
  await t.step("same base, another device, occupied: should, reuse", async () => {
    const guest = await enter();
    await base.exchange();
    const seen = await place.inspect("app");
    assertEquals(seen?.stale.vote, "should");
    assertStringIncludes(seen!.stale.reason, `${base.path} is on device`);
    assertEquals(seen?.occupants.map(({ pid }) => pid), [guest.pid]);
    assertEquals(await keep(base.path), "");
    assertEquals(await id(), first);
    using open = openKept("app", { directory: place.directory, base: base.path });
    assertEquals(open.namespaces.size, 1);
    await place.must("drop", "app", "--stale");
    assertEquals(await id(), first, "drop --stale leaves it too");
    assertEquals(await guest.leave(), "n1\n");
  });
  await t.step("same base, another device, unused: should, discard", async () => {
    let refused = "";
    try {
      openKept("app", { directory: place.directory, base: base.path })[Symbol.dispose]();
    } catch (error) {
      refused = (error as Error).message;
    }
    assertStringIncludes(refused, 'cannot use the kept set "app": it is stale');
    assertEquals(await keep(base.path), "made\n");
    assertNotEquals(await id(), first);
    assertEquals((await place.inspect("app"))?.stale.vote, "no");
  });
  await t.step("another base, unused: must, discard", async () => {
    const before = await id();
    assertEquals((await place.inspect("app", "--base", other.path))?.stale.vote, "must");
    assertEquals(await keep(other.path), "made\n");
    assertNotEquals(await id(), before);
  });
  await t.step("another base, occupied: must, discard, and the process in it stays", async () => {
    const before = await id();
    const host = `n${count}\n`;
    const guest = await enter();
    assertEquals(await keep(base.path), "made\n");
    assertNotEquals(await id(), before);
    assertEquals(await guest.leave(), host);
  });
  await t.step("drop --stale removes only stale sets", async () => {
    await place.must("keep", "fresh", "--base", other.path, "--unshare", "uts", "--", "true");
    await base.exchange();
    await place.must("drop", "--all", "--stale");
    assertEquals(place.files(), ["fresh.info", "fresh.uts"]);
  });
});

test(
  "keep replaces a set that has another --key, also rootless and in use",
  ["root", "user"],
  async () => {
    for (const place of [new Place(), new Place("penne-test")]) {
      using _place = place;
      const keep = (key: string) =>
        place.must(
          "keep",
          "app",
          "--key",
          key,
          "--unshare",
          "user,pid,mnt",
          "--",
          "sh",
          "-c",
          "sleep 1000 >&- 2>&- & echo made",
        );
      assertEquals(await keep("v1"), "made\n");
      assertEquals(await keep("v1"), "");
      const old = (await place.inspect("app"))!;
      assertEquals(await keep("v2"), "made\n");
      const seen = (await place.inspect("app"))!;
      assertNotEquals(seen.namespaces.pid?.id, old.namespaces.pid?.id);
      // The process in the old one is still there, with its PID 1.
      const sleeper = old.occupants[0]!.pid;
      assertEquals(Deno.readLinkSync(`/proc/${sleeper}/ns/pid`), `pid:[${old.namespaces.pid!.inum}]`);
      for (const { pid } of [...old.occupants, ...seen.occupants]) Deno.kill(pid, "SIGKILL");
      await until("the old holder has ended", () => {
        try {
          return Deno.readTextFileSync(`/proc/${old.holder!.pid}/stat`).includes(") Z ");
        } catch {
          return true;
        }
      });
    }
  },
);

test("a malformed info file is reported at once, by every command that reads it", ["root"], async () => {
  using place = new Place();
  await place.must("keep", "bad", "--unshare", "uts,pid", "--", "true");
  const holder = (await place.inspect("bad"))!.holder!.pid;
  const info = `${place.ns}/bad.info`;
  Deno.writeTextFileSync(info, `${Deno.readTextFileSync(info)}malformed\n`);
  const line = Deno.readTextFileSync(info).split("\n").length - 1;
  const began = Date.now();
  const seen = await place.run("inspect", "bad");
  assertEquals(seen.code, 1);
  assertStringIncludes(seen.stdout, `its info file bad.info: line ${line} is not a key=value assignment`);
  let message = "";
  try {
    openKept("bad", { directory: place.directory });
  } catch (error) {
    message = (error as Error).message;
  }
  assertEquals(
    message,
    `cannot use the kept set "bad": its info file bad.info: line ${line} is not a key=value assignment`,
  );
  const made = await place.run("keep", "bad", "--unshare", "uts", "--", "true");
  assertEquals(made.code, 0);
  assertStringIncludes(made.stderr, "is cleared away");
  assert(Date.now() - began < LOCK_LIMIT * 0.8);
  // The holder, which no readable file names, has ended too.
  await until("the holder has ended", () => {
    try {
      return Deno.readTextFileSync(`/proc/${holder}/stat`).includes(") Z ");
    } catch {
      return true;
    }
  });
});
