// Prints what list() and doctor() leave in the program that calls them, as JSON. Its arguments are directories, which are
// searched for files.

import { doctor, list } from "../../../mod/mod.ts";

/** What stands in a directory, and below it. */
function files(path: string): string[] {
  return Array.from(Deno.readDirSync(path)).flatMap(({ name, isDirectory }) => [
    `${path}/${name}`,
    ...isDirectory ? files(`${path}/${name}`) : [],
  ]);
}

/** What a link leads to; nothing if it is gone, as the descriptor that reads its own directory is. */
function target(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return "";
  }
}

/** What may be left by now. */
function state() {
  const names = (path: string) => Array.from(Deno.readDirSync(path), ({ name }) => name);
  const links = (path: string) => names(path).map((name) => target(`${path}/${name}`)).filter((link) => link !== "");
  const children = names("/proc/self/task").flatMap((tid) =>
    Deno.readTextFileSync(`/proc/self/task/${tid}/children`).trim().split(" ").filter(Boolean)
  );
  return {
    children: children.map((pid) => Deno.readTextFileSync(`/proc/${pid}/stat`)),
    descriptors: links("/proc/self/fd").sort(),
    mounts: Deno.readTextFileSync("/proc/self/mountinfo").split("\n"),
    namespaces: links("/proc/self/ns").sort(),
    files: Deno.args.flatMap(files),
  };
}

/** Does all that may leave something. */
async function round() {
  await list({ addresses: true, holders: true });
  doctor();
}

await round(); // what the runtime opens once
const first = state();
await round();
console.log(JSON.stringify([first, state()]));
