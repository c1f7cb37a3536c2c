import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";

test("garbage is collected when few more objects are dropped, or when patience ends", async () => {
  const script = `${import.meta.dirname}/garbage_program.ts`;
  const args = ["run", "-A", "--quiet", "--no-check", "--v8-flags=--expose-gc", script];
  const { stdout } = await new Deno.Command(Deno.execPath(), { args, stderr: "inherit" }).output();
  const times: number[] = JSON.parse(new TextDecoder().decode(stdout));
  assertEquals(times.length, 4, `${times}`);
  assert(times[0]! >= 5000 && times[2]! >= 10_000, `${times}`);
});
