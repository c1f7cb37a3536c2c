// What is left when penne returns: no process, and soon no namespace.

import { assertEquals } from "@std/assert";
import { asUser, ownAgents, penne, processes, run, sh, test } from "../../lib/helpers.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:util-linux", "package:iproute2"] as const;

// The user namespace counts the network namespaces below it; penne makes its own in it.
const COUNTED = `set -e
  limit() { echo $1 >/proc/sys/user/max_net_namespaces; }
  limit 60
  i=0; while [ $i -lt 50 ]; do $P run -- $COMMAND; i=$((i + 1)); done
  limit 1
  i=0; until unshare -n true 2>/dev/null; do i=$((i + 1)); [ $i -lt 1000 ] || { echo "a namespace is left"; exit 1; }; sleep 0.01; done
  echo done`;

for (const [what, command] of [["at once", "true"], ["after a moment", "sleep 0.3"]] as const) {
  const runs = what === "at once" ? 20 : 5;
  test(`no namespace is left by runs whose command ends ${what}`, [...NEEDS], async () => {
    const env = [`P=${penne()}`, `COMMAND=${command}`];
    const script = COUNTED.replace("-lt 50", `-lt ${runs}`);
    const { stdout, stderr } = await sh(asUser(["env", ...env, "unshare", "-Ur", "sh", "-c", script]), { cwd: "/" });
    assertEquals([stdout, stderr], ["done\n", ""]);
  });
}

test("a namespace that others keep loses its interface when the command has ended", [...NEEDS], async () => {
  // A process that joined from outside outlives the command.
  const script = `exec 3<>/dev/null; mkfifo $D/go
    $P run --ns-ifname tap7 -- sh -c 'echo ready; read -r _ <'$D/go &
    penne=$!
    until child=$(pgrep -f "read -r _ <$D/go" -n) && [ -e /proc/$child/ns/net ] && nsenter -U --preserve-credentials -n -t $child ip link show tap7 >/dev/null 2>&1; do sleep 0.02; done
    nsenter -U --preserve-credentials -n -t $child sh -c ': >'$D'/joined; until ! ip link show tap7 2>/dev/null >&2; do sleep 0.02; done; echo gone' &
    until [ -e $D/joined ]; do sleep 0.02; done; echo >$D/go; wait`;
  const directory = (await sh(asUser(["mktemp", "-d", "/tmp/penne-end-XXXXXX"]))).stdout.trim();
  try {
    const { stdout } = await sh(asUser(["env", `P=${penne()}`, `D=${directory}`, "sh", "-c", script]), { cwd: "/" });
    assertEquals(stdout, "ready\ngone\n");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

/** How commands are enclosed, and so who ends what they leave behind. */
const ENCLOSURES: readonly (readonly string[])[] = [
  [],
  ["--net=none"],
  ["--no-init"],
  ["--unshare", Deno.uid() === 0 ? "net" : "user,net"],
];

for (const options of ENCLOSURES) {
  test(`no process is alive when penne run${options.map((word) => ` ${word}`).join("")} returns`, [
    "user namespaces",
  ], async () => {
    const agents = new Set(ownAgents().map(({ pid }) => pid));
    for (const [ending, code] of [["exit 3", 3], ["kill -KILL $$", 137]] as const) {
      if (code === 137 && options.includes("--no-init")) continue; // PID 1 cannot kill itself
      const marker = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
      // Children, orphans, one that ignores signals, one with a session of its own, and many at once.
      const script = `sleep ${marker} & (sleep ${marker} &); setsid sleep ${marker} &
        (trap '' TERM HUP; sleep ${marker} &); for i in 1 2 3 4 5 6 7 8 9; do sleep ${marker} & done; ${ending}`;
      const result = await run([...options, "--", "sh", "-c", script]);
      const left = processes().filter(({ cmdline }) => cmdline.includes(marker));
      const guards = ownAgents().filter(({ pid }) => !agents.has(pid));
      assertEquals([left, guards], [[], []], ending);
      assertEquals(result.code, code, result.stderr);
    }
  });
}
