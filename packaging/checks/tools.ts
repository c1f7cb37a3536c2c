// Checks that another program makes: spelling by codespell, and the format of C by clang-format.

/** What a program said, or null if it is not installed. */
function output(root: string, [program, ...args]: string[]): { success: boolean; text: string } | null {
  try {
    const { success, stdout, stderr } = new Deno.Command(program!, { args, cwd: root }).outputSync();
    const decoder = new TextDecoder();
    return { success, text: decoder.decode(stdout) + decoder.decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** The files of a checkout that git tracks or does not ignore. */
function files(root: string, ...patterns: string[]): string[] {
  const listed = output(root, ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", ...patterns]);
  if (!listed?.success) throw new Error(`cannot list the files of ${root}: ${listed?.text ?? "git is not installed"}`);
  return listed.text.split("\n").filter((path) => path !== "");
}

/** What a check by another program found: problems, or the program that is missing. */
export type ToolResult = { problems: string[] } | { missing: string };

/** Runs a program over files; each line that it prints is a problem. */
function check(root: string, argv: string[], patterns: string[]): ToolResult {
  const found = output(root, [...argv, ...files(root, ...patterns)]);
  if (!found) return { missing: argv[0]! };
  // Lines that begin with a blank repeat the source below a message.
  const lines = found.text.split("\n").filter((line) => /^\S/.test(line));
  if (!found.success && !lines.length) lines.push(`${argv[0]} failed`);
  return { problems: found.success ? [] : lines };
}

/** Checks the spelling of everything that people read; packaging/words.txt lists words that are right. */
export function checkSpelling(root: string): ToolResult {
  const patterns = [
    "*.md",
    "*.ts",
    "*.c",
    "*.json",
    ".ci/run",
    "packaging/prepare",
    "packaging/*",
    ":!ffi/core/shim_elf.ts",
    ":!packaging/words.txt",
  ];
  return check(root, ["codespell", "--ignore-words", "packaging/words.txt"], patterns);
}

/** Checks the format of all C files against .clang-format. */
export function checkFormatOfC(root: string): ToolResult {
  return check(root, ["clang-format", "--dry-run", "-Werror"], ["*.c"]);
}

/** Builds the manual pages and checks them; a warning of mandoc's is a problem. */
export function checkManualPages(root: string): ToolResult {
  const built = output(root, [Deno.execPath(), "run", "-A", "--quiet", "packaging/man.ts"]);
  if (!built?.success) return { problems: (built?.text ?? "packaging/man.ts cannot be run").trim().split("\n") };
  const pages = [...Deno.readDirSync(`${root}/dist/man`)].map(({ name }) => `dist/man/${name}`).sort();
  const found = output(root, ["mandoc", "-T", "lint", "-W", "warning", ...pages]);
  if (!found) return { missing: "mandoc" };
  return { problems: found.text.split("\n").filter((line) => line !== "") };
}
