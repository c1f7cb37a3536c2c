// Boots a machine in software emulation, has it run scripts, and reads what they did.

import { type Machine, makeDisk, must } from "./disk.ts";
import type { Who } from "./check.ts";

/** How a script ended in a guest. */
export interface Ran {
  /** File name of the script. */
  readonly name: string;
  /** Exit code; 124 or 137 when it took too long. */
  readonly code: number;
  readonly milliseconds: number;
  /** Both outputs. */
  readonly output: string;
}

/** What a guest did. */
export interface Log {
  readonly ran: readonly Ran[];
  /** Whether it came to the end of the scripts. */
  readonly complete: boolean;
  /** What was printed at its console. */
  readonly console: string;
}

/** A script for a guest. */
export interface Script {
  readonly name: string;
  readonly who: Who;
  readonly text: string;
}

/** Reads what init.sh has written to the third disk. */
export function parseLog(bytes: Uint8Array): { ran: Ran[]; complete: boolean } {
  const decoder = new TextDecoder();
  const ran: Ran[] = [];
  let at = 0;
  for (;;) {
    const end = bytes.indexOf(10, at);
    if (end < 0 || bytes[at] === 0) return { ran, complete: false };
    const line = decoder.decode(bytes.subarray(at, end));
    if (line === "done") return { ran, complete: true };
    const [, name, code, milliseconds, size] = /^check (\S+) (\d+) (\d+) (\d+)$/.exec(line) ?? [];
    if (!name) return { ran, complete: false }; // the guest has ended in the middle
    const output = decoder.decode(bytes.subarray(end + 1, end + 1 + Number(size)));
    ran.push({ name, code: Number(code), milliseconds: Number(milliseconds), output });
    at = end + 1 + Number(size) + 1;
  }
}

function commandLine({ kernel, disk, vmlinuz, initrd }: Machine, work: string): string[] {
  const [program, board, terminal] = kernel.architecture === "x86_64"
    // On a busy machine the timer may not tick while the kernel tests it.
    ? ["qemu-system-x86_64", ["-M", "q35", "-cpu", "Nehalem"], "ttyS0 no_timer_check"] as const
    : ["qemu-system-aarch64", ["-M", "virt,gic-version=3", "-cpu", "cortex-a76"], "ttyAMA0"] as const;
  const drive = (id: string, file: string, options: string) => [
    ...["-drive", `id=${id},if=none,format=raw,file=${file},${options}`],
    ...["-device", `virtio-blk-pci,drive=${id}`],
  ];
  return [
    program,
    ...board,
    ...["-accel", "tcg,thread=multi,tb-size=512", "-m", "2048", "-smp", "1"],
    ...["-nodefaults", "-no-reboot", "-display", "none", "-net", "none", "-serial", `file:${work}/console`],
    ...["-kernel", vmlinuz, "-initrd", initrd],
    ...[
      "-append",
      `console=${terminal} quiet panic=-1 mitigations=off nowatchdog random.trust_cpu=on ${kernel.options ?? ""}`,
    ],
    ...["-device", "virtio-rng-pci"],
    ...drive("root", disk, "snapshot=on,cache=unsafe"),
    ...drive("job", `${work}/job.disk`, "readonly=on"),
    ...drive("log", `${work}/log`, "cache=unsafe"),
  ];
}

/**
 * Runs scripts in a guest, one after the other.
 *
 * @param job Directory with what the scripts use; it is /job in the guest.
 * @param limits Seconds for a script and for the whole guest.
 * @param show Called with each new line of the console.
 */
export async function runGuest(
  machine: Machine,
  job: string,
  scripts: readonly Script[],
  limits: { readonly script: number; readonly guest: number },
  show: (line: string) => void = () => {},
): Promise<Log> {
  const work = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "penne-guest-" });
  try {
    await Deno.mkdir(`${job}/checks`);
    await Deno.writeTextFile(`${job}/limit`, `${limits.script}`);
    for (const { name, who, text } of scripts) await Deno.writeTextFile(`${job}/checks/${name}.${who}`, text);
    await makeDisk(job, `${work}/job.disk`, 8 << 20);
    for (const [name, size] of [["log", 64 << 20], ["console", 0]] as const) {
      await Deno.writeFile(`${work}/${name}`, new Uint8Array(0));
      await Deno.truncate(`${work}/${name}`, size);
    }
    const [program, ...args] = commandLine(machine, work);
    const child = new Deno.Command("timeout", {
      args: ["--kill-after=5", `${limits.guest}`, program!, ...args],
      stdin: "null",
      stderr: "piped",
    }).spawn();
    let shown = 0;
    const showNew = async () => {
      const lines = (await Deno.readTextFile(`${work}/console`)).split(/\r?\n/);
      while (shown < lines.length - 1) show(lines[shown++]!);
    };
    const timer = setInterval(showNew, 1000);
    const { code, stderr } = await child.output();
    clearInterval(timer);
    await showNew();
    const console = await Deno.readTextFile(`${work}/console`);
    const words = new TextDecoder().decode(stderr);
    if (code !== 0 && code !== 124 && code !== 137) {
      throw new Error(`${program} ended with ${code}: ${words}${console}`);
    }
    return { ...parseLog(await Deno.readFile(`${work}/log`)), console };
  } finally {
    await must("rm", ["-rf", work]);
  }
}
