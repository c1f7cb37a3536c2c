// Timelines: what a picture tells, that it is safe to open, and that it copes with thousands of namespaces.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { WatchEvent } from "../../mod/watch/facts/watch_event.ts";
import { Axis } from "../../mod/watch/timeline/axis.ts";
import { draw, durationText } from "../../mod/watch/timeline/picture.ts";
import { endingOf, Narrator } from "../../mod/watch/timeline/story.ts";
import { penne, sh, test } from "../lib/helpers.ts";

const INFO = { title: "Test", time: "2026-01-01T00:00:00Z" };
const of = (mono: number, pid: number, comm: string) => ({
  mono: BigInt(mono),
  pid,
  tid: pid,
  comm,
  uid: 0,
  cgroup: null,
  container: null,
  exact: true,
  source: "ebpf" as const,
});
const net = (inum: number) => ({ type: "net" as const, inum, id: `${inum}000` });

function storyOf(events: readonly WatchEvent[]) {
  const narrator = new Narrator();
  for (const event of events) narrator.take(event);
  return narrator.story();
}

/** A process that makes a namespace, which another joins, is named, and ends. */
function life(at: number, pid: number, inum: number, path: string, comm = "unshare"): WatchEvent[] {
  const { id } = net(inum);
  const change = { event: "ns", type: "net", errno: 0 } as const;
  return [
    { event: "fork", ...of(at, pid, "sh"), ppid: 7, ptid: 7 },
    { event: "exec", ...of(at + 1, pid, comm) },
    { ...change, ...of(at + 2, pid, comm), reason: "unshare", old: { inum: 1, id: "1" }, new: { inum, id } },
    { event: "birth", ...of(at + 2, pid, comm), ...net(inum) },
    { ...change, ...of(at + 3, 9, "nsenter"), reason: "setns", old: { inum: 1, id: "1" }, new: { inum, id } },
    { event: "name", mono: BigInt(at + 4), path, ...net(inum), state: "mounted", exact: true, source: "fanotify" },
    { event: "exit", ...of(at + 5, pid, comm), last: true, status: 256 },
    { event: "death", mono: BigInt(at + 6), ...net(inum), cause: "unmounted", exact: true, source: "handle" },
  ];
}

test("A picture tells births, joins, names and ends with their causes", () => {
  const page = draw(storyOf(life(1_000_000, 8, 500, "/run/netns/blue")), INFO);
  for (
    const words of [
      "net 500",
      "made by unshare 8",
      "nsenter 9 joins (setns)",
      "named /run/netns/blue",
      "its last mount was removed",
      "sh → unshare",
      "unshare net 500",
      "exit 1",
      "1 namespaces made, 1 ended; 2 processes",
    ]
  ) assertStringIncludes(page, words);
  assertEquals([endingOf(9), endingOf(null), endingOf(0)], ["killed by signal 9", "ended", "exit 0"]);
  assertEquals([durationText(12_340_000n), durationText(90_000_000_000n)], ["12.3 ms", "90 s"]);
});

test("A picture begins with what happened first, also while the first snapshot was taken", () => {
  const snapshot = { event: "resync", mono: 50n, tasks: 1, differences: 0 } as const;
  const story = storyOf([snapshot, ...life(5, 8, 500, "/x")]);
  assertEquals([story.from, story.to], [5n, 50n]);
  assert(!draw(story, INFO).includes("+-"));
});

test("A picture has no script and nothing from elsewhere, whatever names there are", () => {
  const evil = `<script>alert(1)</script>"'&\u202e\x1b`;
  const page = draw(storyOf(life(5, 8, 500, `/x${evil}`, evil)), { ...INFO, title: evil });
  assertEquals(page.match(/<script|javascript:|\son\w+=|\ssrc=|\shref=|url\(|@import|http:|https:/g), null);
  assertEquals(page.includes("\u202e") || page.includes("\x1b"), false);
  assertStringIncludes(page, "default-src 'none'");
  for (const tag of ["div", "span", "details", "summary", "i", "b"]) {
    const count = (pattern: RegExp) => page.match(pattern)?.length ?? 0;
    assertEquals(count(new RegExp(`<${tag}[ >]`, "g")), count(new RegExp(`</${tag}>`, "g")), tag);
  }
});

test("A picture of 5000 namespaces folds them, and one of none is a page too", () => {
  const events = Array.from({ length: 5000 }, (_, i) => life(i * 1000, 10 + i, 1000 + i, `/n/${i}`)).flat();
  const page = draw(storyOf(events), INFO);
  assertEquals(page.match(/made by /g)!.length, 5000 * 2); // as words, and as what the pointer shows
  assertStringIncludes(page, "<summary>Namespaces: net</summary>");
  assert(page.match(/<details class="group">/g)!.length >= 5000 / 50);
  assertStringIncludes(draw(storyOf([]), INFO), "0 namespaces made");
});

test("Places on the axis are in the order of the times, and lead back to them", () => {
  const times = Array.from({ length: 200 }, () => BigInt(Math.floor(Math.random() ** 6 * 1e12)))
    .toSorted((a, b) => a < b ? -1 : 1);
  const axis = new Axis(times[0]!, times.at(-1)!, times);
  const places = times.map((mono) => axis.at(mono));
  assertEquals(places, places.toSorted((a, b) => a - b));
  assert(places[0]! >= 0 && Math.abs(places.at(-1)! - 100) < 1e-6);
  for (const place of [0, 10, 50, 99]) assert(Math.abs(axis.at(axis.timeAt(place)) - place) < 0.01, `${place}`);
  assertEquals(new Axis(5n, 5n, []).at(5n), 0);
});

test("penne timeline draws a recording, also one that is cut off, and refuses other files", ["root"], async () => {
  const directory = await Deno.makeTempDir({ prefix: "penne-timeline-" });
  try {
    const [file, page] = [`${directory}/recording`, `${directory}/page.html`];
    const watch = [penne(), "watch", "--event", "fork,exec,exit", "--record", file, "-o", "/dev/null", "--", "true"];
    assertEquals((await sh(watch)).code, 0);
    const drawn = await sh([penne(), "timeline", file]);
    assertEquals([drawn.code, drawn.stderr], [0, ""]);
    assertStringIncludes(drawn.stdout, "<!DOCTYPE html>");
    assertEquals((await sh([penne(), "timeline", "-o", page, file])).code, 0);
    assertEquals(await Deno.readTextFile(page), drawn.stdout);
    await Deno.truncate(file, (await Deno.stat(file)).size - 5);
    const cut = await sh([penne(), "timeline", file]);
    assertEquals([cut.code, cut.stdout.endsWith("</html>\n")], [1, true]);
    assertStringIncludes(cut.stderr, "it is cut off after line");
    const foreign = await sh([penne(), "timeline", "/etc/passwd"]);
    assertEquals([foreign.code, foreign.stdout], [1, ""]);
    assertStringIncludes(foreign.stderr, "it is no recording of penne watch");
    assertEquals((await sh([penne(), "timeline"])).code, 2);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
