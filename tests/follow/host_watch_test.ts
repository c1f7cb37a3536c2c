// How long the watch of the host's network pauses.

import { assertEquals } from "@std/assert";
import { pauseAfter } from "../../mod/follow/host_watch.ts";
import { test } from "../lib/helpers.ts";

test("A pause grows with what looks cost, but after a single slow one it has an end soon", () => {
  assertEquals(pauseAfter(0, 0), 70);
  assertEquals(pauseAfter(69, 69), 70);
  assertEquals(pauseAfter(5000, 0), 5000);
  assertEquals(pauseAfter(40_000, 0), 10_000);
  assertEquals(pauseAfter(40_000, 300), 10_000);
  assertEquals(pauseAfter(40_000, 30_000), 30_000);
  assertEquals(pauseAfter(300, 40_000), 300);
  assertEquals(pauseAfter(1e9, 1e9), 300_000);
});
