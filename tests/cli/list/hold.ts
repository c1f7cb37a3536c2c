// A namespace that one thing alone holds, made by hold.py.

import { assertEquals } from "@std/assert";
import type { Listing } from "../../../mod/list/listing.ts";
import { command, type How, penne, ROOT } from "../../lib/helpers.ts";
import { must } from "../../lib/netlab.ts";

/** Something that holds a namespace. */
export interface Held extends AsyncDisposable {
  /** The namespace, as in `uts:[4026532189]`; all of them, with blanks between. */
  readonly name: string;
  /** The process that made it. */
  readonly pid: number;
  /** What holds it: kind, process, thread or descriptor, or another namespace. */
  readonly holder: string;
  /** Lets go of it. */
  release(): Promise<void>;
}

/** Starts the lab's program, which reads and writes lines, by way of programs that execute the next one, as `unshare`. */
export async function hold(args: readonly string[], how: How = {}, by: readonly string[] = []): Promise<Held> {
  // As text, since the user without privileges may not reach the checkout.
  const program = await Deno.readTextFile(`${ROOT}tests/cli/list/hold.py`);
  const child = command([...by, "/usr/bin/python3", "-c", program, ...args], how, {
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const line = async () => {
    while (!text.includes("\n")) {
      const { value, done } = await lines.read();
      if (done) throw new Error(`hold.py ${args.join(" ")} has ended`);
      text += value;
    }
    const end = text.indexOf("\n");
    const found = text.slice(0, end);
    text = text.slice(end + 1);
    return found;
  };
  const input = child.stdin.getWriter();
  const [name, holder] = [await line(), await line()];
  return {
    name,
    pid: child.pid,
    holder,
    async release() {
      await input.write(new TextEncoder().encode("\n"));
      assertEquals(await line(), "released");
    },
    async [Symbol.asyncDispose]() {
      await input.close();
      await lines.cancel();
      await child.status;
    },
  };
}

/** What `penne ls --json` prints; by way of programs that execute it, as `nsenter`. */
export async function ls(args: readonly string[], how: How = {}, by: readonly string[] = []): Promise<Listing> {
  return JSON.parse(await must([...by, penne(), "ls", "--json", ...args], how));
}
