// The program as one script with compiled code beside it, so that a start neither parses nor compiles what it executes.
//
// Theory of operation. Half of a start would be V8 parsing JavaScript and compiling functions. Deno's own code cache is
// a file with a guessable name in /tmp; this one is part of the program. All commands become one classic script, which is
// loaded by `node:vm`: unlike import(), that takes compiled code. Modules in it are still evaluated only when they are
// imported. The runtime itself makes the code: a first program, the trainer, carries out commands and writes what V8 has
// compiled by then. There are few files of code, each for several commands, because the runtime reads all files of the
// program at each start, at 0.6 ms for a megabyte.
//
// V8 accepts code only with the same version, the same flags, and a source of the same length. It compiles as ever if it
// refuses, so this can cost time but not change what happens.

/** The file of the script: a name that `deno compile` does not take for a module. */
export const SCRIPT_FILE = "penne.script";

/** The parts of the script, by modules that main.ts imports; any other one has the code of the last. */
const PARTS = {
  run: ["mod/cli/run.ts", "mod/cli/run_tap.ts", "mod/cli/attach.ts", "mod/cli/pasta/start.ts"],
  enter: ["mod/cli/enter_start.ts", "mod/cli/nsexec.ts"],
  other: [],
} as const;
type Part = keyof typeof PARTS;

/** The files of compiled code. */
export const CACHE_FILES: readonly string[] = Object.keys(PARTS).map((part) => cacheFile(part as Part));

function cacheFile(part: Part): string {
  return `penne.${part}`;
}

/**
 * The module that the script is made of.
 *
 * @param modules What main.ts imports dynamically, by paths below the root.
 * @returns The text of a module in the root.
 */
export function entryModule(modules: readonly string[]): string {
  const entries = modules.map((module) => `  "${module}": () => import("./${module}"),\n`);
  return `export const ENTRIES = {\n${entries.join("")}};\n`;
}

/**
 * Makes a classic script of a bundle: an expression whose value is a function that returns what the bundle exports.
 *
 * @example
 * ```ts
 * import { asScript } from "./code_cache.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals((0, eval)(asScript("var a=1;export{a as ENTRIES};\n"))(), 1);
 * ```
 *
 * @param bundle A bundle that imports nothing, and exports one name at its end.
 * @returns The script.
 * @throws {Error} If the bundle has something that a script cannot have.
 */
export function asScript(bundle: string): string {
  const end = /\bexport\{([\w$]+)(?: as \w+)?\};?\s*$/.exec(bundle);
  if (!end) throw new Error("the bundle does not end with its export");
  const body = bundle.slice(0, end.index);
  const foreign = /\bimport(?:\.meta\b|\(|[^"]*\bfrom ?"| ?")|(?:^|[;}])export[ {*]|<!--|^\s*-->/m.exec(body);
  if (foreign) throw new Error(`the bundle has "${foreign[0]}", which a script cannot have`);
  return `(()=>{"use strict";${body};return ${end[1]}})`;
}

/** Loads the script in the program. It is written without types, as nothing bundles it. */
const LOADER = `import{Script}from"node:vm";
const $files=import.meta.dirname+"/";
let $entries;
const $load=$module=>{
  $entries??=new Script(Deno.readTextFileSync($files+"${SCRIPT_FILE}"),{
    filename:"penne.js",
    cachedData:Deno.readFileSync($files+($parts[$module]??"${cacheFile("other")}")),
  }).runInThisContext()();
  return $entries[$module]();
};
`;

/** Loads the script in the trainer; TRAIN is the file of the code, which is written at a good end, or read for `__check`. */
const TRAINER = `const $start=performance.now(),{Script}=await import("node:vm"),$cost=performance.now()-$start;
const $source=Deno.readTextFileSync(import.meta.dirname+"/${SCRIPT_FILE}"),$exit=Deno.exit,$file=Deno.env.get("TRAIN");
if(Deno.args[0]==="__check"){
  const $script=new Script($source,{filename:"penne.js",cachedData:Deno.readFileSync($file)});
  $exit($script.cachedDataRejected||$cost>Number(Deno.args[1])?1:0);
}
const $script=new Script($source,{filename:"penne.js"}),$entries=$script.runInThisContext()();
const $load=$module=>$entries[$module]();
Deno.exit=$code=>{
  if(!$code)Deno.writeFileSync($file,$script.createCachedData());
  $exit($code);
};
`;

/** What main.ts imports dynamically, in its bundle. */
const IMPORT = /\bimport\("bundle:([^"]+)"\)/g;

/**
 * Makes the program's first module, which loads the script for what it imports.
 *
 * @param main The bundle of main.ts, whose dynamic imports are of "bundle:" and a path.
 * @param trains Whether it is that of the trainer.
 * @returns The module.
 */
export function firstModule(main: string, trains: boolean): string {
  const parts = Object.entries(PARTS).flatMap(([part, modules]) =>
    modules.map((module) => [module, cacheFile(part as Part)])
  );
  const loader = trains ? TRAINER : LOADER.replace("$parts", JSON.stringify(Object.fromEntries(parts)));
  return loader + main.replace(IMPORT, (_, module) => `$load("${module}")`);
}

/** Milliseconds that loading `node:vm` may take; more than that is not worth it. */
const COST_MAX = 5;
/** Milliseconds for a lesson, on the busiest machine. */
const LESSON = 60_000;

/** Starts a program whose output is discarded. */
function start(program: string, line: string, code: string): Deno.ChildProcess {
  const signal = AbortSignal.timeout(LESSON);
  const quiet = { stdin: "null", stdout: "null", stderr: "null" } as const;
  return new Deno.Command(program, { args: line.split(" "), env: { TRAIN: code }, signal, ...quiet }).spawn();
}

/** Commands to learn from; of each list, the first that works on this machine. `PID` stands for a process with namespaces. */
const LESSONS = {
  other: ["wait --for present PID", "--help"],
  run: ["run -- true", "run --net=none -- true", "run --help"],
  enter: ["enter PID -- true", "enter --help"],
} as const satisfies Record<Part, readonly string[]>;

/** A process with namespaces. */
interface Place extends AsyncDisposable {
  /** Its number; a word that is none where namespaces are not allowed. */
  readonly pid: string;
}

async function openPlace(trainer: string, code: string): Promise<Place> {
  const args = ["run", "--net=none", "--status-fd=1", "--", "sleep", "60"];
  const io = { stdin: "null", stdout: "piped", stderr: "null" } as const;
  const process = new Deno.Command(trainer, { args, env: { TRAIN: code }, ...io }).spawn();
  let status = "";
  for await (const chunk of process.stdout.values({ preventCancel: true })) {
    status += new TextDecoder().decode(chunk);
    if (status.includes('"started"')) break;
  }
  return {
    pid: /"child":(\d+)/.exec(status)?.[1] ?? "none",
    async [Symbol.asyncDispose]() {
      try {
        process.kill();
      } catch {
        // It has ended.
      }
      await process.stdout.cancel();
      await process.status;
    },
  };
}

/**
 * Makes the compiled code of all commands.
 *
 * @param trainer The trainer.
 * @param directory Where to write it.
 * @returns Whether there is any, and it is worth having.
 */
export async function train(trainer: string, directory: string): Promise<boolean> {
  const path = (part: Part) => `${directory}/${cacheFile(part)}`;
  const succeeds = async (line: string, part: Part) => (await start(trainer, line, path(part)).status).success;
  if (!await succeeds("--help", "other") || !await succeeds(`__check ${COST_MAX}`, "other")) return false;
  await using place = await openPlace(trainer, path("run"));
  for (const [part, lines] of Object.entries(LESSONS) as [Part, readonly string[]][]) {
    let learned = false;
    for (const line of lines) learned ||= await succeeds(line.replace("PID", place.pid), part);
    if (!learned || !await succeeds("__check Infinity", part)) return false;
  }
  return true;
}
