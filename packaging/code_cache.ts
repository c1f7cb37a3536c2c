// Bundles as scripts with compiled code beside them, so that a start neither parses nor compiles what it executes.
//
// Theory of operation. Half of a start would be V8 parsing JavaScript and compiling functions. Deno's own code cache is
// a file with a guessable name in /tmp; this one is part of the program. A bundle becomes a classic script, which is
// loaded by `node:vm`: unlike import(), that takes cached code. The cache is made by the runtime itself: a first program,
// the trainer, carries out real commands and writes what V8 has compiled by then.
//
// V8 accepts a cache only with the same version, the same flags, and a source of the same length. It compiles as ever if
// it refuses, so a cache can cost time but not change what happens.

/** A bundle, and its file in the program: a name that `deno compile` does not take for a module. */
export function scriptFile(bundle: string): string {
  return bundle.replace(/\.js$/, ".script");
}

/** The file of a bundle's cached code. */
export function cacheFile(bundle: string): string {
  return bundle.replace(/\.js$/, ".cache");
}

/** Stands in the program for an import of a bundle. */
const LOAD = "$load";

/**
 * Makes a classic script of a bundle: an expression whose value is a function that evaluates the bundle.
 *
 * @example
 * ```ts
 * import { asScript } from "./code_cache.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const script = asScript("var a=()=>1;export{a as one};\n");
 * const load = () => Promise.reject(new Error("it imports nothing"));
 * assertEquals((await (0, eval)(script)(load)).one(), 1);
 * ```
 *
 * @param bundle A bundle without static imports, which exports names at its end.
 * @returns The script. Its function takes one that loads other bundles, and returns a promise of what is exported.
 * @throws {Error} If the bundle has something that a script cannot have.
 */
export function asScript(bundle: string): string {
  const end = /\bexport\{([^{}]*)\};?\s*$/.exec(bundle);
  if (!end) throw new Error("a bundle does not end with its exports");
  const exported = end[1]!.split(",").map((entry) => {
    const [local, name = local] = entry.split(" as ");
    return `${name}:${local}`;
  });
  const body = dynamicImports(bundle.slice(0, end.index));
  const foreign = /\bimport\.meta\b|\bexport[ {*]|<!--|^\s*-->/m.exec(body);
  if (foreign) throw new Error(`a bundle has ${foreign[0]}, which a script cannot have`);
  return `(async ${LOAD}=>{"use strict";${body};return{${exported.join()}}})`;
}

/** Replaces each dynamic import of another bundle. */
function dynamicImports(text: string): string {
  return text.replace(/\bimport\("\.\/([^"]+)"\)/g, (_, bundle) => `${LOAD}("${bundle}")`);
}

/** Loads bundles in the program. It is written without types, as nothing bundles it. */
const LOADER = `import{Script}from"node:vm";
const $files=import.meta.dirname+"/",$loaded={};
const $compile=$name=>{
  const $path=$files+$name.slice(0,-2);
  return new Script(Deno.readTextFileSync($path+"script"),{filename:$name,cachedData:Deno.readFileSync($path+"cache")});
};
const $load=$name=>$loaded[$name]??=$compile($name).runInThisContext()($load);
`;

/**
 * Loads bundles in the trainer, and writes what was compiled of them when it ends well. `__load` loads one bundle and does
 * nothing; `__check` fails if the code of one is refused.
 */
const TRAINER = `const $start=performance.now(),{Script}=await import("node:vm");
const $cost=performance.now()-$start,$to=Deno.env.get("TRAIN")+"/",$exit=Deno.exit;
const $files=import.meta.dirname+"/",$loaded={},$scripts={};
const $compile=($name,$more)=>new Script(
  Deno.readTextFileSync($files+$name.slice(0,-2)+"script"),
  {filename:$name,...$more},
);
const $load=$name=>$loaded[$name]??=($scripts[$name]=$compile($name)).runInThisContext()($load);
const $cache=$name=>$to+$name.slice(0,-2)+"cache";
if(Deno.args[0]==="__check"){
  $exit($compile(Deno.args[1],{cachedData:Deno.readFileSync($cache(Deno.args[1]))}).cachedDataRejected?1:0);
}
Deno.exit=$code=>{
  if(!$code)for(const $name in $scripts)Deno.writeFileSync($cache($name),$scripts[$name].createCachedData());
  $exit($code);
};
if(Deno.args[0]==="__load"){
  await $load(Deno.args[1]);
  Deno.writeTextFileSync($to+"cost",""+$cost);
  Deno.exit(0);
}
`;

/**
 * Makes the program's first module, which loads bundles as scripts.
 *
 * @param main The bundle of main.ts.
 * @param trains Whether it is that of the trainer.
 * @returns The module.
 */
export function firstModule(main: string, trains: boolean): string {
  return `${trains ? TRAINER : LOADER}${dynamicImports(main)}`;
}

/** Milliseconds that loading `node:vm` may take; more than that is not worth it. */
const COST_MAX = 5;

/** Runs a program with its output discarded; returns whether it succeeded. */
async function succeeds(program: string, args: readonly string[], env: Record<string, string>): Promise<boolean> {
  const signal = AbortSignal.timeout(10_000);
  const quiet = { stdin: "null", stdout: "null", stderr: "null" } as const;
  const { success } = await new Deno.Command(program, { args: [...args], env, signal, ...quiet }).output();
  return success;
}

/** Commands to learn from; of each line, the first that works on this machine. `PID` stands for a process with namespaces. */
const LESSONS: readonly (readonly string[])[] = [
  ["--version"],
  ["run -- true", "run --net=none -- true", "run --help"],
  ["enter PID -- true", "enter --help"],
  ["wait --for present PID", "wait --help"],
  ["attach --help"],
  ["watch --help"],
  ["keep --help"],
  ["inspect", "inspect --help"],
  ["drop --help"],
  ["ports --help"],
  ["nsexec --help"],
  ["pasta --config-net -- true", "pasta --help"],
  ["pesto --help"],
];

/**
 * Makes the cached code of all bundles.
 *
 * @param trainer The trainer.
 * @param bundles The bundles.
 * @param directory Where to write it.
 * @returns Whether it is worth having.
 * @throws {Error} If a bundle cannot be loaded.
 */
export async function train(trainer: string, bundles: readonly string[], directory: string): Promise<boolean> {
  const env = { TRAIN: directory };
  // First at least the outermost code of each.
  for (const bundle of bundles) {
    if (!await succeeds(trainer, ["__load", bundle], env)) throw new Error(`the trainer cannot load ${bundle}`);
  }
  if (Number(await Deno.readTextFile(`${directory}/cost`)) > COST_MAX) return false;
  const args = ["run", "--net=none", "--status-fd=1", "--", "sleep", "60"];
  const place = new Deno.Command(trainer, { args, env, stdin: "null", stdout: "piped", stderr: "null" }).spawn();
  try {
    let status = "";
    for await (const chunk of place.stdout.values({ preventCancel: true })) {
      status += new TextDecoder().decode(chunk);
      if (status.includes('"started"')) break;
    }
    const pid = /"child":(\d+)/.exec(status)?.[1] ?? "none";
    for (const alternatives of LESSONS) {
      for (const line of alternatives) {
        if (await succeeds(trainer, line.replace("PID", pid).split(" "), env)) break;
      }
    }
  } finally {
    await place.stdout.cancel();
    try {
      place.kill();
    } catch {
      // It has ended: this machine does not allow namespaces.
    }
    await place.status;
  }
  const accepted = await Promise.all(bundles.map((bundle) => succeeds(trainer, ["__check", bundle], env)));
  return accepted.every(Boolean);
}
