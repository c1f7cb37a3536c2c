// planMaps() and parseSubIds().

import { assertEquals, assertThrows } from "@std/assert";
import { PenneError } from "../../mod/base/errors.ts";
import { type MapRequest, planMaps } from "../../mod/idmap/plan.ts";
import { parseRange } from "../../mod/idmap/ranges.ts";
import { parseSubIds } from "../../mod/idmap/subid.ts";
import { test } from "../lib/helpers.ts";

const SOMEBODY = { uid: 1000, gid: 100, capabilities: 0n, blocked: 0n };
const ROOT = { uid: 0, gid: 0, capabilities: (1n << 41n) - 1n, blocked: 0n };
const GRANTED = { users: [{ start: 100000, count: 65536 }], groups: [{ start: 200000, count: 65536 }] };

function plan(request: MapRequest, caller = SOMEBODY, subIds = GRANTED) {
  return planMaps(request, caller, "alice", subIds);
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

test("planMaps() appends all subordinate ranges and skips those that overlap", () => {
  const users = [{ start: 5000, count: 10 }, { start: 5005, count: 10 }, { start: 999, count: 5 }, {
    start: 7000,
    count: 3,
  }];
  assertEquals(plan({ mode: "auto" }, SOMEBODY, { ...GRANTED, users }).users!.ranges.slice(1), [
    { inside: 1, outside: 5000, count: 10 },
    { inside: 11, outside: 7000, count: 3 },
  ]);
});

test("planMaps() says what is missing for auto, and how to add it", async () => {
  const error = assertThrows(() => plan({ mode: "auto" }, SOMEBODY, { users: [], groups: [] }), PenneError);
  assertEquals(error.message, "cannot map user ids: /etc/subuid grants no subordinate ids to alice");
  assertEquals((await error.hints()).length, 2);
});

test("planMaps() refuses setgroups where the kernel would", () => {
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

test("parseSubIds() skips lines that are not OWNER:START:COUNT", () => {
  const text = "# comment\nalice:1:2:3\nalice:x:1\nalice:100:0\nalice:4294967295:5\n\nbob:1:1\nalice:10:5\n1000:20:5";
  assertEquals(parseSubIds(text, 1000, "alice"), [{ start: 10, count: 5 }, { start: 20, count: 5 }]);
  assertEquals(parseSubIds(text, 7, null), []);
});
