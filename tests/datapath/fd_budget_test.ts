// Which namespace may open another flow.

import { assert, assertEquals } from "@std/assert";
import { openFilesLimit } from "../../ffi/sys/process.ts";
import { FdBudget } from "../../mod/datapath/netif/fd_budget.ts";
import { test } from "../lib/helpers.ts";

test("a namespace has at most 65536 flows, whatever the limit of descriptors", () => {
  const budget = new FdBudget();
  budget.countNamespace(1);
  assert(budget.mayOpen(0));
  assert(!budget.mayOpen(65536));
});

test("three quarters of the descriptors are for all, the last quarter is divided among the namespaces", () => {
  const budget = new FdBudget();
  budget.countNamespace(1);
  budget.countNamespace(1);
  const count = (flows: number) => {
    for (let i = 0; i < flows; i++) budget.countFlow(1);
  };
  const total = Number(openFilesLimit().soft) - 64;
  const common = Math.ceil(total * 0.75);
  count(common);
  // One namespace has them all. The other one may still open an eighth of the total.
  assertEquals([budget.mayOpen(common), budget.mayOpen(0), budget.mayOpen(Math.ceil(total / 8))], [false, true, false]);
  count(total - common);
  assert(!budget.mayOpen(0));
});
