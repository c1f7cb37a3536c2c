// The gate: format, lint, documentation, types on both supported versions of Deno, the shim, and all tests.

const OLDEST = "2.4.2";
const deno = Deno.execPath();

/** All modules: the type checks want them by name. */
async function modules(): Promise<string[]> {
  const found: string[] = ["main.ts"];
  const walk = async (directory: string) => {
    for await (const { name, isDirectory } of Deno.readDir(directory)) {
      if (isDirectory) await walk(`${directory}/${name}`);
      else if (name.endsWith(".ts")) found.push(`${directory}/${name}`);
    }
  };
  for (const directory of ["ffi", "mod", "packaging", "tests"]) await walk(directory);
  return found;
}

const files = await modules();
const oldest = Deno.version.deno === OLDEST ? [deno] : ["npx", "-y", `deno@${OLDEST}`];
const steps: [string, string[]][] = [
  ["format", [deno, "fmt", "--check"]],
  ["lint", [deno, "lint"]],
  ["documentation", [deno, "doc", "--lint", "mod/mod.ts"]],
  [`types on ${Deno.version.deno}`, [deno, "check", ...files]],
  [`types on ${OLDEST}`, [...oldest, "check", ...files]],
  ["shim", [deno, "run", "-A", "packaging/build.ts", "--werror"]],
  ["tests", [deno, "task", "test"]],
];

for (const [name, [command, ...args]] of steps) {
  console.error(`ok: ${name}`);
  const { code } = await new Deno.Command(command!, { args, cwd: new URL("..", import.meta.url) }).spawn().status;
  if (code !== 0) {
    console.error(`ok: ${name} has failed`);
    Deno.exit(1);
  }
}
console.error("ok: all is well");
