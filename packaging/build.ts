// Builds libshim.c for each architecture and writes the ELF files into ffi/core/shim_elf.ts.
//
// The result is committed, because a program that imports mod/mod.ts over the network has neither a C compiler nor the
// files beside the module; it gets the shim with the module graph. The file carries the SHA-256 of its source, so a stale
// one is detected here and by a test, and without a change to libshim.c no compiler is needed.

const root = new URL("..", import.meta.url);
const source = new URL("libshim.c", root);
const output = new URL("ffi/core/shim_elf.ts", root);

const FLAGS = [
  "-std=c11",
  "-Os",
  "-fPIC",
  "-shared",
  "-nostdlib",
  "-ffreestanding",
  "-fvisibility=hidden",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fno-unwind-tables",
  "-fno-tree-loop-distribute-patterns",
  "-Wall",
  "-Wextra",
  "-Wshadow",
  "-Wswitch-default",
  "-Wl,-e,_start",
  "-Wl,-z,norelro",
  "-Wl,-z,nodelete", // a pool thread may still wait in it when a Worker that has loaded it is terminated
  "-Wl,-z,noseparate-code",
  "-Wl,-z,noexecstack",
  "-Wl,--build-id=none",
  "-Wl,--hash-style=sysv",
  "-Wl,-s",
];

/** Compilers to try for each architecture, the native ones first. */
const COMPILERS = ["x86_64", "aarch64"].map((arch) => {
  const native = arch === Deno.build.arch ? [Deno.env.get("CC") ?? "cc", "gcc", "clang"] : [];
  return { arch, compilers: [...native, `${arch}-linux-gnu-gcc`] };
});

/** The hexadecimal SHA-256 of `bytes`. */
async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** Compiles the shim for `arch` with the first installed compiler; returns null without one. */
async function compile(arch: string, compilers: readonly string[]): Promise<Uint8Array | null> {
  const out = await Deno.makeTempFile({ suffix: ".so" });
  try {
    for (const compiler of compilers) {
      try {
        const { success } = await new Deno.Command(compiler, {
          args: [...FLAGS, ...Deno.args.includes("--werror") ? ["-Werror"] : [], "-o", out, source.pathname],
        }).spawn().status;
        if (!success) throw new Error(`cannot compile libshim.c for ${arch}: ${compiler} failed`);
        return await Deno.readFile(out);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    return null;
  } finally {
    await Deno.remove(out);
  }
}

/** Base64 in lines of 120 characters. */
function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replace(/.{120}(?=.)/g, "$&\n");
}

const hash = await sha256(await Deno.readFile(source));
const before = await Deno.readTextFile(output).catch(() => "");
if (before.includes(hash) && !Deno.args.includes("--force")) Deno.exit(0);

const built: Record<string, string> = {};
for (const { arch, compilers } of COMPILERS) {
  const elf = await compile(arch, compilers);
  if (elf) built[arch] = base64(elf);
  else if (arch === Deno.build.arch) {
    console.error("build: libshim.c has changed and no C compiler is installed (tried cc, gcc, clang)");
    Deno.exit(1);
  } else console.error(`build: no compiler for ${arch}: its shim is left out (Debian: gcc-aarch64-linux-gnu)`);
}
await Deno.writeTextFile(
  output,
  `// The shim's ELF files in base64, made from libshim.c by \`deno task build\`; do not edit.

/** SHA-256 of the libshim.c that these files were made from. */
export const SOURCE_SHA256 = "${hash}";

/** The ELF file of each architecture, by Deno's name. */
export const SHIM_ELF: Readonly<Record<string, string>> = {
${Object.entries(built).map(([arch, text]) => `  ${arch}: \`\n${text}\`,\n`).join("")}};
`,
);
console.error(`build: ffi/core/shim_elf.ts holds the shim for ${Object.keys(built).join(" and ")}`);
