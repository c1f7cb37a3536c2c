// A host that refuses something, in a guest: what penne says there, and that the fix which it prints makes the command work.

import { judge } from "../kernels/check.ts";
import { machine } from "../kernels/disk.ts";
import { runGuest, type Script } from "../kernels/guest.ts";
import { putPenne } from "../kernels/job.ts";
import { type Kernel, KERNELS } from "../kernels/kernels.ts";
import { TEST_USER } from "../lib/user.ts";

/** A host. */
export interface Host {
  readonly name: string;
  /** Script that makes it, as root. */
  readonly make: string;
  /** Words of a command line that prints "ran" where nothing is refused; `$user` before it runs it as the user. */
  readonly command: string;
  /** What penne says; without it, nothing is refused. */
  readonly says?: readonly (string | RegExp)[];
  /** Applies the fix that was printed, which is in `$hint`. */
  readonly fix?: string;
}

/** A machine, and the hosts that are made on it. */
export interface Guest {
  readonly name: string;
  /** Options that its kernel is started with. */
  readonly options?: string;
  /** Script that undoes what any of the hosts has made. It runs before each of them. */
  readonly undo?: string;
  readonly hosts: readonly Host[];
}

const [TRIXIE] = KERNELS.filter(({ name }) => name === "6.12");
const KERNEL: Kernel = { ...TRIXIE!, packages: ["apparmor", "secilc"] };

/** Seconds for a host. It needs up to 10 of a processor, and in CI that may be four times slower and busy. */
const LIMIT = 120;

/** Runs the command with what has been refused, and then with the fix. */
function scriptOf({ make, command, says, fix }: Host, undo: string, at: number): Script {
  const text = `exec 2>&1
user="setpriv --reuid ${TEST_USER} --regid ${TEST_USER} --init-groups env HOME=/home/user"
mkdir -p /usr/local/bin; [ -e /usr/local/bin/penne ] || cp /job/bin/penne /usr/local/bin/; export PATH=/usr/local/bin:$PATH
${undo}
${make}
said=$({ ${command}; } 2>&1) && refused=0 || refused=$?
printf '%s\\n' "$said"
echo "first: $refused"
hint=$(sed -n 's/^hint: //p' <<<"$said" | head -n 1)
${fix ?? ""}
${
    says
      ? `again=$({ ${command}; } 2>&1) && code=0 || code=$?; printf '%s\\n' "$again" | sed 's/^/again: /'; echo "then: $code"`
      : ""
  }
`;
  return { name: `${at}`.padStart(3, "0"), who: "root", text };
}

/**
 * Tries hosts.
 *
 * @param limit Seconds for the guest.
 * @param show Called with each line of its console.
 * @returns What is wrong; nothing if all was as it has to be.
 */
export async function tryHosts(
  { options = "", undo = "", hosts }: Guest,
  limit: number,
  show?: (line: string) => void,
): Promise<{ readonly faults: string[]; readonly outputs: readonly string[] }> {
  const guest = await machine(KERNEL);
  const job = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "penne-job-" });
  try {
    await putPenne(KERNEL, job);
    const scripts = hosts.map((host, at) => scriptOf(host, undo, at));
    const chosen = { ...guest, kernel: { ...KERNEL, options } };
    const log = await runGuest(chosen, job, scripts, { script: LIMIT, guest: limit }, show);
    const faults = hosts.flatMap(({ name, says }, i) => {
      const ran = log.ran.find((one) => one.name === `${scripts[i]!.name}.root`);
      const sees = says ? [...says, /^first: 1(25)?$/m, /^again: ran$/m, "then: 0"] : ["ran\n", "first: 0"];
      const wrong = ran ? judge({ sees, not: says ? [/^again: (hint|penne): /m] : ["hint:"] }, ran) : "it has not run";
      const cut = ran?.code === 124 || ran?.code === 137 ? `it was ended after ${LIMIT} s; ` : "";
      return wrong ? [`${name}: ${cut}${wrong}`] : [];
    });
    if (!log.complete) faults.push(`the guest did not come to the end within ${limit} s:\n${log.console.slice(-2000)}`);
    return { faults, outputs: hosts.map(({ name }, i) => `## ${name}\n${log.ran[i]?.output}`) };
  } finally {
    await Deno.remove(job, { recursive: true });
  }
}
