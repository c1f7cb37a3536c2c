// The program as one script with compiled code beside it, so that a start neither parses nor compiles what it executes.
//
// Theory of operation. Half of a start would be V8 parsing JavaScript and compiling functions. Deno's own code cache is
// a file with a guessable name in /tmp; this one is part of the program. All commands become one classic script, which is
// loaded by `node:vm`: unlike import(), that takes compiled code. Modules in it are still evaluated only when they are
// imported. The runtime itself makes the code: a first program, the trainer, carries out commands and writes what V8 has
// compiled by then. The runtime reads all files of the program at each start, twice, at 0.6 ms for a megabyte. So these
// files are none of its: they are in the executable between the runtime and what it reads, and the program reads those that
// a command needs, by the system calls that load the shim.
//
// V8 accepts code only with the same version, the same flags, and a source of the same length. It compiles as ever if it
// refuses, so this can cost time but not change what happens.

import { encodeBootstrap } from "../mod/nsexec/message.ts";

/**
 * Flags of V8 in the program: one thread; little room for young garbage, of which a data path makes none; gc(), to be called when idle.
 *
 * A start executes hundreds of functions a few times. Baseline code for them costs a millisecond and gains nothing, so V8
 * makes it in larger batches than it would (4096 bytes). Optimised code stays as early as ever: to make it after 4000 calls
 * instead of 400 gained a start another millisecond, and cost each of the first thousands of flows a fifth of its time.
 */
export const V8_FLAGS = [
  "--single-threaded",
  "--max-semi-space-size=1",
  "--expose-gc",
  "--baseline-batch-compilation-threshold=32768",
].join();

/** The file of the script: a name that `deno compile` does not take for a module. */
export const SCRIPT_FILE = "penne.script";

/** The parts of the script, by modules that main.ts imports; any other one has the code of the last. */
const PARTS = {
  none: ["mod/cli/run.ts"],
  run: ["mod/cli/run_tap.ts", "mod/cli/attach.ts", "mod/cli/pasta/start.ts"],
  enter: ["mod/cli/enter_start.ts"],
  nsexec: ["mod/cli/nsexec.ts"],
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

/** The file of the shim's ELF. */
export const SHIM_FILE = "penne.shim";

/** Files of the program: with their places in the executable, from its start; null if the runtime reads them. */
export type Places = Readonly<Record<string, readonly [offset: number, length: number]>> | null;

/** Numbers of the system calls that read the executable. */
const CALLS = {
  x86_64: { openat: 257, lseek: 8, read: 0, close: 3 },
  aarch64: { openat: 56, lseek: 62, read: 63, close: 57 },
} as const;

/**
 * `$early`, and the function `$read`, which reads files of the program; both for the script's loader. `$early` is what the
 * shim is loaded with (ffi/core/shim.ts), which takes the same system calls. It is written without types, as nothing bundles it.
 */
function reader(places: Places): string {
  if (!places) {
    return `const $early={},$read=$names=>$names.map($name=>Deno.readFileSync(import.meta.dirname+"/"+$name));
`;
  }
  const { openat, lseek, read, close } = CALLS[Deno.build.arch as keyof typeof CALLS];
  return `const $early={},$places=${JSON.stringify(places)};
const $read=$names=>{
  const {syscall}=Deno.dlopen("",{syscall:{parameters:["i64","i64","i64","i64"],result:"i64"}}).symbols;
  const $at=$bytes=>Deno.UnsafePointer.value(Deno.UnsafePointer.of($bytes));
  const $path=new TextEncoder().encode("/proc/self/exe\\0");
  const $file=syscall(${openat}n,-100n,$at($path),0x80000n);
  const $parts=$names.map($name=>{
    const [$offset,$length]=$places[$name],$bytes=new Uint8Array($length);
    syscall(${lseek}n,$file,BigInt($offset),0n);
    for(let $done=0,$n;$done<$length;$done+=$n){
      $n=Number(syscall(${read}n,$file,$at($bytes)+BigInt($done),BigInt($length-$done)));
      if(!($n>0))throw new Error("cannot read the program's file");
    }
    return $bytes;
  });
  syscall(${close}n,$file,0n,0n);
  $early.syscall=syscall;
  return $parts;
};
`;
}

/** Loads the script in the program. */
const LOADER = `let $entries;
const $load=$module=>{
  if(!$entries){
    const [$script,$code,$elf]=$read(["${SCRIPT_FILE}",$parts[$module]??"${cacheFile("other")}","${SHIM_FILE}"]);
    $early.elf=$elf;
    globalThis[Symbol.for("penne.early")]=$early;
    $entries=new Script(new TextDecoder().decode($script),{filename:"penne.js",cachedData:$code}).runInThisContext()();
  }
  return $entries[$module]();
};
`;

/** Loads the script in the trainer; TRAIN is the file of the code, which is written at a good end, or read for `__check`. */
const TRAINER = `const $start=performance.now(),{Script}=await import("node:vm"),$cost=performance.now()-$start;
globalThis[Symbol.for("penne.early")]={elf:Deno.readFileSync(import.meta.dirname+"/${SHIM_FILE}")};
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

/** Replaces the imports of main.ts by those of the script. */
function load(main: string): string {
  return main.replace(IMPORT, (_, module) => `$load("${module}")`);
}

/**
 * Makes the program's first module, which loads the script for what it imports.
 *
 * @param main The bundle of main.ts, whose dynamic imports are of "bundle:" and a path.
 * @param places Where the files are.
 * @returns The module.
 */
export function firstModule(main: string, places: Places): string {
  const parts = Object.entries(PARTS).flatMap(([part, modules]) =>
    modules.map((module) => [module, cacheFile(part as Part)])
  );
  const loader = LOADER.replace("$parts", JSON.stringify(Object.fromEntries(parts)));
  return `import{Script}from"node:vm";\n${reader(places)}${loader}${load(main)}`;
}

/**
 * Makes the trainer's first module.
 *
 * @param main The bundle of main.ts, as for {@linkcode firstModule}.
 * @returns The module.
 */
export function trainingModule(main: string): string {
  return TRAINER + load(main);
}

/** Milliseconds that loading `node:vm` may take; more than that is not worth it. */
const COST_MAX = 5;
/** Milliseconds for a lesson, on the busiest machine. */
const LESSON = 60_000;

/** Starts a program whose output is discarded. */
function start(program: string, args: string[], env: Record<string, string>): Deno.ChildProcess {
  const signal = AbortSignal.timeout(LESSON);
  const quiet = { stdin: "null", stdout: "null", stderr: "null" } as const;
  return new Deno.Command(program, { args, env, signal, ...quiet }).spawn();
}

/** Stands for the lesson that {@linkcode bootstrap} gives. */
const BOOTSTRAP = "(bootstrap)";

/** Has the trainer carry out a bootstrap, as runc(8) has it done: the message comes over a socket; returns whether it could. */
async function bootstrap(trainer: string, code: string): Promise<boolean> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  // What starts a program with a socket as a descriptor: only a shell that has this.
  const shell = ["-c", 'exec 3<>"/dev/tcp/127.0.0.1/$0" && exec "$@"', `${port}`];
  const child = start("bash", [...shell, trainer, "nsexec", "--", "true"], {
    TRAIN: code,
    _LIBCONTAINER_INITPIPE: "3",
  });
  const connection = await Promise.race([listener.accept(), child.status]);
  if (!("write" in connection)) return false;
  using pipe = connection;
  const text = (value: string) => new TextEncoder().encode(value);
  await pipe.write(encodeBootstrap({
    flags: 1,
    attributes: [
      { name: "cloneFlags", value: 0x7c020000 }, // user, mnt, uts, ipc, pid and net
      { name: "uidMap", value: text(`0 ${Deno.uid()} 1\n`) },
      { name: "gidMap", value: text(`0 ${Deno.gid()} 1\n`) },
      { name: "rootless", value: 1 },
    ],
  }, "1.2"));
  return (await child.status).success;
}

/**
 * Commands to learn from; of each list, the first that works on this machine. `PID` stands for a process with namespaces.
 * A command that is not only asked for its help is carried out as users carry it out.
 */
const LESSONS = {
  other: ["wait --for present PID", "--help"],
  none: ["run --net=none -- true", "run --help"],
  run: ["run -- true", "run --net=none -- true", "run --help"],
  enter: ["enter PID -- true", "enter --help"],
  nsexec: [BOOTSTRAP, "nsexec --help"],
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
  const succeeds = async (line: string, part: Part) => {
    if (line === BOOTSTRAP) return await bootstrap(trainer, path(part)).catch(() => false);
    return (await start(trainer, line.split(" "), { TRAIN: path(part) }).status).success;
  };
  if (!await succeeds("--help", "other") || !await succeeds(`__check ${COST_MAX}`, "other")) return false;
  await using place = await openPlace(trainer, path("none"));
  for (const [part, lines] of Object.entries(LESSONS) as [Part, readonly string[]][]) {
    let learned = false;
    for (const line of lines) learned ||= await succeeds(line.replace("PID", place.pid), part);
    if (!learned || !await succeeds("__check Infinity", part)) return false;
  }
  return true;
}
