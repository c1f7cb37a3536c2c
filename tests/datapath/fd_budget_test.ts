// Who may have one more flow.

import { assert, assertEquals } from "@std/assert";
import { openFilesLimit } from "../../ffi/sys/process.ts";
import { countFlow, countNamespace, mayOpen } from "../../mod/datapath/netif/fd_budget.ts";

function count(times: number, change: 1 | -1): void {
  for (let i = 0; i < times; i++) countFlow(change);
}

Deno.test("a namespace has 65536 flows at the most, whatever descriptors there are", () => {
  countNamespace(1);
  assert(mayOpen(0));
  assert(!mayOpen(65536));
  countNamespace(-1);
});

Deno.test("three quarters of the descriptors are for anybody, of the last quarter each namespace has its part", () => {
  countNamespace(1);
  countNamespace(1);
  const budget = Number(openFilesLimit().soft) - 64;
  const common = Math.ceil(budget * 0.75);
  count(common, 1);
  // One namespace has them all; the other one may have an eighth yet.
  assertEquals([mayOpen(common), mayOpen(0), mayOpen(Math.ceil(budget / 8))], [false, true, false]);
  count(budget - common, 1);
  assert(!mayOpen(0));
  count(budget, -1);
  countNamespace(-1);
  countNamespace(-1);
});
