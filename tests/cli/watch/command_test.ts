// `penne watch -- COMMAND`: filters beside it, the first events, and its summary.

import { assert, assertEquals } from "@std/assert";
import { asUser, penne, ROOT, sh, test } from "../../lib/helpers.ts";
import { NEEDS_OF_BACKEND } from "../../lib/needs.ts";
import { must } from "../../lib/netlab.ts";
import { BACKENDS, type Emitted, lasting, OFTEN } from "./lab/events.ts";

const NEEDS = ["root", "package:util-linux"] as const;

/** Follows a command, and returns its events. */
async function follow(args: readonly string[], argv: readonly string[]): Promise<Emitted[]> {
  const { code, stdout, stderr } = await sh([penne(), "watch", "--json", ...args, "--", ...argv]);
  assertEquals([code, stderr], [0, ""]);
  return stdout.trim().split("\n").map((line) => JSON.parse(line));
}

for (const backend of BACKENDS) {
  test(`${backend}: a filter beside a command lets pass what its descendants do`, [
    ...NEEDS,
    ...NEEDS_OF_BACKEND[backend],
  ], () =>
    lasting(backend, async (seconds) => {
      const script = `P="sleep ${seconds}"; $P; unshare --net $P; setpriv --reuid 65534 --clear-groups $P; :`;
      const own = /\d+/.exec(await Deno.readLink("/proc/self/ns/uts"))![0];
      const births = async (...filter: string[]) => {
        const events = await follow(["--backend", backend, ...OFTEN, ...filter], ["sh", "-c", script]);
        assertEquals(events.at(-1)!.born, events.filter(({ event }) => event === "birth").length, filter.join(" "));
        return events.filter(({ event, type }) => event === "birth" && type === "net");
      };
      // The back ends that read /proc may do so late, and then take the change for the work of another program.
      const name = backend === "ebpf" ? "unshare" : "sh,unshare,sleep";
      for (const filter of [[], ["--comm", name], ["--uid", "0"], ["--ns", own], ["--type", "net", "--uid", "0"]]) {
        const [born, more] = await births(...filter);
        assert(born, filter.join(" "));
        assertEquals([more, born!.uid], [undefined, 0]);
        assertEquals(typeof born!.cgroup, "string", filter.join(" ")); // it is looked up although the fork was left out
      }
      for (const filter of [["--comm", "nobody"], ["--uid", "65534"], ["--ns", "1"]]) {
        assertEquals(await births(...filter), [], filter.join(" "));
      }
      const others = await follow(["--backend", backend, ...OFTEN, "--uid", "65534"], ["sh", "-c", script]);
      assert(others.some(({ event, uid }) => event === "exit" && uid === 65534));
    }));

  test(
    `${backend}: the first event of a command has its name`,
    [...NEEDS, ...NEEDS_OF_BACKEND[backend]],
    () =>
      lasting(backend, async (seconds) => {
        for (const command of ["unshare", "/usr/bin/unshare"]) {
          const argv = [command, "--net", "sleep", `${seconds}`];
          const events = await follow(["--backend", backend, ...OFTEN, "--event", "exec,birth"], argv);
          const [born] = events.filter(({ event }) => event === "birth");
          assert(["unshare", "sleep"].includes(born!.comm), born!.comm);
          if (backend === "ebpf") assertEquals(born!.comm, "unshare");
        }
      }),
  );
}

for (const backend of ["proc", "poll"] as const) {
  test(
    `${backend}: without handles of namespaces, a summary counts none that ended with the command`,
    [...NEEDS, ...NEEDS_OF_BACKEND[backend], "user", "package:gcc"],
    () =>
      lasting(backend, async (seconds) => {
        const directory = await Deno.makeTempDir({ prefix: "penne-no-handles-" });
        try {
          await Deno.chmod(directory, 0o755);
          const wrap = `${directory}/no_handles`;
          await must(["gcc", "-O1", "-o", wrap, `${ROOT}tests/cli/watch/lab/no_handles.c`]);
          // One holds the other; and only one of each, since without ids a number that is used again tells no birth.
          const script = `unshare --user --map-root-user --net sleep ${seconds}`;
          const args = ["watch", "--json", "--backend", backend, ...OFTEN, "--", "sh", "-c", script];
          const { code, stdout } = await sh(asUser([wrap, penne(), ...args]));
          const events: Emitted[] = stdout.trim().split("\n").map((line) => JSON.parse(line));
          const births = events.filter(({ event }) => event === "birth").map(({ type }) => type).sort();
          assertEquals([code, births], [0, ["net", "user"]]);
          assertEquals([events.at(-1)!.born, events.at(-1)!.alive], [2, []]);
          // One that a process outside of the command's tree holds stays alive.
          const left = `unshare --uts sh -c 'exec 9</proc/self/ns/uts; sleep ${seconds}; setsid sleep ${
            3 + 5 * seconds
          } & echo'`;
          const held = await sh([wrap, penne(), ...args.slice(0, -1), left]);
          const { born, alive } = JSON.parse(held.stdout.trim().split("\n").at(-1)!);
          assertEquals([born, alive.length], [1, 1], held.stdout);
        } finally {
          await Deno.remove(directory, { recursive: true });
        }
      }),
  );
}
