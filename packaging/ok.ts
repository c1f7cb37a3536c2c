// The gate: format, lint, documentation, types on both supported versions of Deno, the shim, the checks of
// packaging/check.ts, and all tests.
//
//   --no-tests   everything but the tests

import { OTHERS, PRODUCT, sources } from "./checks/modules.ts";

const OLDEST = "2.4.2";
const deno = Deno.execPath();
const root = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

const config: { exports: Record<string, string> } = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`));

/** All modules: the type checks want them by name. */
const files = sources(root, [...PRODUCT, ...OTHERS]);
const oldest = Deno.version.deno === OLDEST ? [deno] : ["npx", "-y", `deno@${OLDEST}`];
const steps: [string, string[]][] = [
  ["format", [deno, "fmt", "--check"]],
  ["lint", [deno, "lint"]],
  ["documentation", [deno, "doc", "--lint", ...Object.values(config.exports)]],
  [`types on ${Deno.version.deno}`, [deno, "check", "--quiet", ...files]],
  [`types on ${OLDEST}`, [...oldest, "check", "--quiet", ...files]],
  ["shim", [deno, "run", "-A", "packaging/build.ts", "--werror"]],
  ["checks", [deno, "run", "-A", "packaging/check.ts"]],
];
if (!Deno.args.includes("--no-tests")) steps.push(["tests", [deno, "task", "test"]]);

const failed: string[] = [];
/** Runs a step to its end, and then shows what it printed; the tests show it at once. */
async function take([name, [command, ...args]]: typeof steps[number]): Promise<void> {
  const stdio = name === "tests" ? "inherit" : "piped";
  const child = new Deno.Command(command!, { args, cwd: root, stdout: stdio, stderr: stdio }).spawn();
  const pieces = stdio === "piped" ? await child.output() : null;
  console.error(`ok: ${name}`);
  for (const bytes of pieces ? [pieces.stdout, pieces.stderr] : []) {
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  }
  if (!(await child.status).success) failed.push(name);
}

// The type checks take most of the time, and one processor each.
const isTypes = ([name]: typeof steps[number]) => name.startsWith("types");
const types = Promise.all(steps.filter(isTypes).map(take));
for (const step of steps.filter((one) => !isTypes(one))) {
  if (step[0] === "tests") await types;
  await take(step);
}
await types;
if (failed.length) {
  console.error(`ok: failed: ${failed.join(", ")}`);
  Deno.exit(1);
}
console.error("ok: everything passed");
