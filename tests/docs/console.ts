// Runs the console blocks of a document, and compares what they print with what the document shows.
//
//   ```console                          a session; "```console not run: REASON" is left out
//   $ COMMAND                           as the test user
//   # COMMAND                           as root, if the block begins so; else input for the command before
//   > MORE                              continues a command
//   …                                   any output, within a line or for any number of lines
//
// Numbers of three digits and more, addresses and times differ from run to run, so any other one will do.
// A command that exits with a failure must show it: by a message, or by `echo $?` as the next command.

import { TEST_USER } from "../lib/helpers.ts";

/** One command of a block. */
export interface Step {
  /** The command line. */
  readonly command: string;
  /** Lines for its standard input. */
  readonly input: string[];
  /** What the document shows. */
  readonly expected: string[];
}

/** One block. */
export interface Block {
  /** Line in the document. */
  readonly line: number;
  /** Whether root runs it. */
  readonly root: boolean;
  /** Why it is not run; null if it is. */
  readonly notRun: string | null;
  /** The commands. */
  readonly steps: Step[];
}

/** The blocks of a document. */
export function consoleBlocks(markdown: string): Block[] {
  const blocks: Block[] = [];
  const lines = markdown.split("\n");
  for (let i = 0; i < lines.length; i++) {
    const fence = /^( *)```console(?: not run: (.+))?$/.exec(lines[i]!);
    if (!fence) continue;
    const start = i + 1;
    const steps: Step[] = [];
    let root: boolean | null = null;
    for (i++; lines[i]!.trim() !== "```"; i++) {
      const line = lines[i]!.slice(fence[1]!.length);
      root ??= line.startsWith("# ");
      const [last] = steps.slice(-1);
      if (line.startsWith(root ? "# " : "$ ")) steps.push({ command: line.slice(2), input: [], expected: [] });
      else if (!last) throw new Error(`line ${i + 1}: a block begins with a command`);
      else if (line.startsWith("> ") && !last.expected.length) {
        steps[steps.length - 1] = { ...last, command: `${last.command}\n${line.slice(2)}` };
      } else if (line.startsWith("# ")) last.input.push(line.slice(2));
      else last.expected.push(line);
    }
    blocks.push({ line: start, root: root ?? false, notRun: fence[2] ?? null, steps });
  }
  return blocks;
}

const VARIABLE = new RegExp(
  [
    "\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z", // a time
    "(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", // a MAC address
    "\\d+\\.\\d+\\.\\d+\\.\\d+", // IPv4
    "[0-9a-f]{0,4}:(?:[0-9a-f]{0,4}:)+[0-9a-f]{0,4}", // IPv6
    "\\d{3,}",
    "…",
  ].join("|"),
  "g",
);

function patternOf(line: string): string {
  let pattern = "";
  let end = 0;
  const escape = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/ +/g, " +");
  for (const match of line.matchAll(VARIABLE)) {
    pattern += escape(line.slice(end, match.index));
    end = match.index + match[0].length;
    pattern += match[0] === "…" ? ".*" : /^\d{3,}$/.test(match[0]) ? "\\d+" : "[\\w.:-]+";
  }
  return pattern + escape(line.slice(end));
}

/** Whether output is as a document shows it. */
export function matches(expected: readonly string[], output: string): boolean {
  const pattern = expected.map((line) => line.trim() === "…" ? "(?:.*\n)*" : `${patternOf(line.trimEnd())} *\n`);
  const actual = output.trimEnd() === "" ? "" : `${output.trimEnd()}\n`;
  return new RegExp(`^${pattern.join("")}$`).test(actual);
}

const MARK = "=== penne console ===";

/** A shell script that runs the steps, each behind a mark and with its exit code in front of the next one. */
function scriptOf(steps: readonly Step[]): string {
  const lines = ["exec 2>&1", "status=0"];
  for (const { command, input } of steps) {
    lines.push(`printf '\\n${MARK}%s\\n' "$status"`, "(exit $status)");
    lines.push(input.length ? `${command} <<'END_OF_INPUT'\n${input.join("\n")}\nEND_OF_INPUT` : command);
    lines.push("status=$?");
  }
  return [...lines, `printf '\\n${MARK}%s\\n' "$status"`, ""].join("\n");
}

/** What one step did. */
export interface StepResult {
  /** The step. */
  readonly step: Step;
  /** Its output. */
  readonly output: string;
  /** Its exit code; null if it did not end. */
  readonly code: number | null;
}

/**
 * Runs a block on a machine of its own: its own processes, /run, and a network that is an interface without a neighbour.
 *
 * @param block The block.
 * @param directory Its working directory, which the test user owns.
 * @param binary Where penne is.
 */
export async function runBlock(block: Block, directory: string, binary: string): Promise<StepResult[]> {
  const script = `${directory}/.script`;
  Deno.writeTextFileSync(script, scriptOf(block.steps));
  Deno.chmodSync(script, 0o755);
  const user = ["setpriv", "--reuid", TEST_USER, "--regid", TEST_USER, "--init-groups", "--inh-caps=-all", "--"];
  const machine = `
    set -e
    mount -t tmpfs none /run
    mkdir -p /run/netns "$XDG_RUNTIME_DIR"
    chmod 0700 "$XDG_RUNTIME_DIR"; chown ${block.root ? "root" : TEST_USER} "$XDG_RUNTIME_DIR"
    ip link set lo up
    ip link add eth0 type veth peer name gateway
    ip addr add 192.0.2.2/24 dev eth0
    ip link set eth0 up
    ip link set gateway up
    ip route add default via 192.0.2.1
    cd "${directory}"
    exec ${[...block.root ? [] : user, "bash", script].join(" ")}`;
  const { stdout } = await new Deno.Command("timeout", {
    args: ["-k", "5", "400", "unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", machine],
    clearEnv: true,
    env: {
      HOME: directory,
      LANG: "C.UTF-8",
      PATH: `${binary.replace(/\/[^/]*$/, "")}:${Deno.env.get("PATH")}`,
      SHELL: "/bin/sh",
      XDG_RUNTIME_DIR: "/run/user/1000",
    },
    stdin: "null",
    stderr: "inherit",
  }).output();
  const parts = new TextDecoder().decode(stdout).split(new RegExp(`\\n${MARK}(\\d+)\\n`));
  return block.steps.map((step, i) => ({
    step,
    output: parts[2 * i + 2] ?? "",
    code: parts[2 * i + 3] === undefined ? null : Number(parts[2 * i + 3]),
  }));
}

/** Describes the fault of a result; null for none. */
export function problemOf({ step, output, code }: StepResult, next: Step | undefined): string | null {
  if (code === null) return "it did not end";
  if (step.expected.length && !matches(step.expected, output)) return "it printed something else";
  if (!step.expected.length && output.trim() !== "") return "it printed something, and the document shows nothing";
  const mayFail = next?.command === "echo $?" || step.expected.some((line) => /^\w+: /.test(line));
  return code !== 0 && !mayFail ? `it exited with ${code}` : null;
}
