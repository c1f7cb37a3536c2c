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
  [`types on ${Deno.version.deno}`, [deno, "check", ...files]],
  [`types on ${OLDEST}`, [...oldest, "check", ...files]],
  ["shim", [deno, "run", "-A", "packaging/build.ts", "--werror"]],
  ["checks", [deno, "run", "-A", "packaging/check.ts"]],
];
if (!Deno.args.includes("--no-tests")) steps.push(["tests", [deno, "task", "test"]]);

const failed: string[] = [];
for (const [name, [command, ...args]] of steps) {
  console.error(`ok: ${name}`);
  const { code } = await new Deno.Command(command!, { args, cwd: root }).spawn().status;
  if (code !== 0) failed.push(name);
}
if (failed.length) {
  console.error(`ok: failed: ${failed.join(", ")}`);
  Deno.exit(1);
}
console.error("ok: everything passed");
