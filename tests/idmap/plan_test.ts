// planMaps(): which ids are mapped, and what it says where they cannot be.

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { PenneError } from "../../mod/base/errors.ts";
import { type MapFacts, type MapRequest, planMaps } from "../../mod/idmap/plan.ts";
import { parseRange, rangeText } from "../../mod/idmap/ranges.ts";
import type { SubIdRange } from "../../mod/users/subid.ts";
import { test } from "../lib/helpers.ts";

const SOMEBODY = { uid: 1000, gid: 100, capabilities: 0n, blocked: 0n };
const ROOT = { uid: 0, gid: 0, capabilities: (1n << 41n) - 1n, blocked: 0n };
const ALICE = { name: "alice", uid: 1000, gid: 100, home: "/home/alice", shell: "" };

function granted(users: SubIdRange[], groups: SubIdRange[] = [{ start: 200000, count: 65536 }]): MapFacts {
  const free = { start: 100000, count: 65536 };
  return {
    user: { user: ALICE, looked: "/etc/passwd", unseen: null },
    users: { ranges: users, looked: "/etc/subuid", unseen: null, others: [], free },
    groups: { ranges: groups, looked: "/etc/subgid", unseen: null, others: [], free },
  };
}

const GRANTED = granted([{ start: 100000, count: 65536 }]);

function plan(request: MapRequest, caller = SOMEBODY, facts: MapFacts | null = GRANTED) {
  return planMaps(request, caller, facts);
}

/** The map of user ids for ranges of subordinate ids, as `in:out:count`. */
function automatic(...users: SubIdRange[]): string[] {
  return plan({ mode: "auto" }, SOMEBODY, granted(users)).users!.ranges.map(rangeText);
}

test("planMaps() maps the own id without a tool, and gives up setgroups for that", () => {
  for (const [mode, uid, gid] of [["root", 0, 0], ["self", 1000, 100]] as const) {
    assertEquals(plan({ mode }), {
      users: { ranges: [{ inside: uid, outside: 1000, count: 1 }], tool: false },
      groups: { ranges: [{ inside: gid, outside: 100, count: 1 }], tool: false },
      denySetgroups: true,
    });
  }
  assertEquals(plan({}).users, plan({ mode: "root" }).users);
});

test("planMaps() leaves more ids than the own one to newuidmap, unless it is privileged", () => {
  const { users, groups, denySetgroups } = plan({ mode: "auto" });
  assertEquals(users!.ranges, [{ inside: 0, outside: 1000, count: 1 }, { inside: 1, outside: 100000, count: 65536 }]);
  assertEquals(groups!.ranges[1], { inside: 1, outside: 200000, count: 65536 });
  assertEquals([users!.tool, groups!.tool, denySetgroups], [true, true, false]);
  const root = plan({ mode: "auto" }, ROOT);
  assertEquals([root.users!.tool, root.groups!.tool, root.denySetgroups], [false, false, false]);
});

test("planMaps() maps every subordinate id once, also of ranges that contain the own one or overlap", () => {
  const id = { start: 1000, count: 1 };
  assertEquals(automatic({ start: 5000, count: 10 }, { start: 7000, count: 3 }), [
    "0:1000:1",
    "1:5000:10",
    "11:7000:3",
  ]);
  // The own id at the beginning, in the middle and at the end.
  assertEquals(automatic({ start: 1000, count: 5 }), ["0:1000:1", "1:1001:4"]);
  assertEquals(automatic({ start: 998, count: 5 }), ["0:1000:1", "1:998:2", "3:1001:2"]);
  assertEquals(automatic({ start: 996, count: 5 }), ["0:1000:1", "1:996:4"]);
  assertEquals(automatic(id, { start: 9, count: 1 }), ["0:1000:1", "1:9:1"]);
  // Twice the same, one in the other, and both sides of an earlier one.
  assertEquals(automatic({ start: 5000, count: 10 }, { start: 5000, count: 10 }), ["0:1000:1", "1:5000:10"]);
  assertEquals(automatic({ start: 5000, count: 10 }, { start: 5003, count: 2 }), ["0:1000:1", "1:5000:10"]);
  assertEquals(automatic({ start: 5000, count: 10 }, { start: 5005, count: 10 }), [
    "0:1000:1",
    "1:5000:10",
    "11:5010:5",
  ]);
  assertEquals(automatic({ start: 5003, count: 2 }, { start: 5000, count: 10 }), [
    ...["0:1000:1", "1:5003:2", "3:5000:3", "6:5005:5"],
  ]);
  assertEquals(automatic({ start: 0, count: 4294967295 }), ["0:1000:1", "1:0:1000", "1001:1001:4294966294"]);
});

test("Maps of random ranges have every id once, and no hole inside", () => {
  let seed = 7;
  const random = (limit: number) => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % limit;
  for (let i = 0; i < 300; i++) {
    const ranges = Array.from({ length: random(6) + 1 }, () => ({ start: 990 + random(30), count: random(15) + 1 }));
    const wanted = new Set(ranges.flatMap(({ start, count }) => Array.from({ length: count }, (_, k) => start + k)));
    wanted.add(1000);
    if (wanted.size === 1) continue;
    const map = plan({ mode: "auto" }, SOMEBODY, granted(ranges)).users!.ranges; // has passed checkRanges()
    const mapped = map.flatMap(({ outside, count }) => Array.from({ length: count }, (_, k) => outside + k));
    assertEquals(mapped.toSorted(), [...wanted].toSorted(), JSON.stringify(ranges));
    assertEquals(map.reduce((sum, { inside, count }) => inside === sum ? sum + count : NaN, 0), wanted.size);
  }
});

test("planMaps() says what is missing for auto, and how to add it", async () => {
  const error = (facts: MapFacts) => assertThrows(() => plan({ mode: "auto" }, SOMEBODY, facts), PenneError);
  const none = granted([], []);
  assertEquals(error(none).message, "cannot map user ids: /etc/subuid grants no subordinate ids to alice");
  assertStringIncludes((await error(none).hints())[0]!, "usermod --add-subuids 100000-165535 alice");
  const free = { ...none, users: { ...none.users, free: { start: 231072, count: 65536 } } };
  const line =
    'add a line to /etc/subuid, such as "alice:231072:65536" (as root: usermod --add-subuids 231072-296607 alice)';
  assertEquals((await error(free).hints())[0], line);
  const full = { ...none, users: { ...none.users, free: null } };
  assertEquals(
    (await error(full).hints())[0],
    "add a line to /etc/subuid once it grants less to others: it has no range of the usual size left",
  );
  const users = [{ start: 1000, count: 1 }];
  assertEquals(
    error(granted(users)).message,
    "cannot map user ids: /etc/subuid grants no subordinate ids besides its own to alice",
  );
  assertEquals(
    error(granted([{ start: 5, count: 1 }], [])).message,
    "cannot map group ids: /etc/subgid grants no subordinate ids to alice",
  );
  const nameless = { ...none, user: { user: null, looked: "/etc/passwd and NSS (sss)", unseen: null } };
  assertEquals(
    error(nameless).message,
    "cannot map user ids: /etc/subuid grants no subordinate ids to user 1000, who has no name in /etc/passwd and NSS (sss)",
  );
  assertStringIncludes((await error(nameless).hints())[0]!, "newuidmap refuses users without one");
  const unseen = "NSS (sss) was not asked: there is no getent";
  const unasked = { ...none, user: { user: null, looked: "/etc/passwd", unseen }, users: { ...none.users, unseen } };
  assertEquals(
    error(unasked).message,
    `cannot map user ids: /etc/subuid grants no subordinate ids to user 1000, who has no name in /etc/passwd; ${unseen}`,
  );
});

test("planMaps() refuses setgroups where the kernel would (CVE-2018-7169)", () => {
  assertThrows(() => plan({ mode: "root", setgroups: "allow" }), PenneError, "allow setgroups");
  assertThrows(() => plan({ mode: "none", setgroups: "allow" }), PenneError, "allow setgroups");
  assertEquals(plan({ mode: "auto", setgroups: "deny" }).denySetgroups, true);
  assertEquals(plan({ mode: "root", setgroups: "allow" }, ROOT).denySetgroups, false);
});

test("planMaps() combines explicit ranges for one kind with the default for the other", () => {
  const { users, groups } = plan({ users: ["0:100000:10"].map(parseRange) });
  assertEquals([users!.tool, groups!.tool], [true, false]);
  assertEquals(groups!.ranges, [{ inside: 0, outside: 100, count: 1 }]);
  assertThrows(() => plan({ mode: "root", users: [] }), PenneError, "not both");
  assertEquals(plan({ mode: "none" }), { users: null, groups: null, denySetgroups: false });
});
