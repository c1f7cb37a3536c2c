// What the bundler makes of `using`.

import { assertEquals } from "@std/assert";
import { keepUsing } from "../../packaging/using.ts";
import { test } from "../lib/helpers.ts";

const SOURCE = `declare function open(name?: string | (() => void)): Disposable & { name: string } | null;
export function alone(): boolean {
  using file = open(); // a comment;
  return file !== null;
}
export function broken(): string {
  using file = open()
    ? open("a")
    : open("b");
  return file!.name;
}
export function nested(): string {
  using file = open(() => {
    console.log("x");

    console.log("y");
  });
  return file!.name;
}
`;

test("the bundler keeps `using` declarations whose variable is used once", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/a.ts`, keepUsing(SOURCE));
    const args = ["bundle", "--quiet", "--minify", `${directory}/a.ts`];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args, cwd: directory }).output();
    assertEquals(new TextDecoder().decode(stdout).match(/\busing /g)?.length, 3);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
