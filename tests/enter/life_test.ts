// The life of a command in joined namespaces: exit codes, signals, terminals, and its end with penne, however that ends.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { SIGNAL } from "../../ffi/core/consts.ts";
import { FORWARDED } from "../../mod/run/supervise.ts";
import { command, endByAgent, ownAgents, penne, type Process, processes, sh, test, until } from "../lib/helpers.ts";
import { Pty } from "../lib/pty.ts";
import { enter, marker, Place } from "./places.ts";

const TRIES = Number(Deno.env.get("PENNE_KILLS") ?? 20);
const AT_ONCE = 10;
/** Milliseconds from the start that cover set-up, the start of the command and its run. */
const WINDOW = 120;
const UNSHARE = ["package:util-linux"] as const;
const BASH = ["package:util-linux", "package:bash", "package:coreutils"] as const;

test("exits with each exit code of the command, or 128 and the number of its signal", UNSHARE, async () => {
  await using place = await Place.all();
  const script = `for i in $(seq 0 15) 126 127 128 254 255; do
      "$0" enter ${place.pid} -- sh -c "exit $i"; [ $? = $i ] || echo "$i became $?"; done
    "$0" enter ${place.pid} -- sh -c 'kill -9 $$'; echo $?
    "$0" enter ${place.pid} -- no-such-command 2>/dev/null; echo $?
    "$0" enter ${place.pid} -- /etc/passwd 2>/dev/null; echo $?`;
  assertEquals((await sh(["sh", "-c", script, penne()])).stdout, "137\n127\n126\n");
});

test("forwards signals", UNSHARE, async () => {
  await using place = await Place.all();
  await Promise.all(
    FORWARDED.filter((n) => !["WINCH", "CONT", "TSTP"].includes(n)).map(async (name) => {
      const child = command([penne(), "enter", `${place.pid}`, "--", "sh", "-c", "echo up; exec sleep 100"], {}, {
        stdout: "piped",
      }).spawn();
      const reader = child.stdout.getReader();
      await reader.read();
      await new Promise((resolve) => setTimeout(resolve, 50)); // from the echo to the exec
      child.kill(`SIG${name}` as Deno.Signal);
      assertEquals((await child.status).code, 128 + SIGNAL[name]);
      await reader.cancel();
    }),
  );
});

/** Processes with a marker among their arguments, and new agents. */
function left(name: string, agents: Set<number>): Process[] {
  const marked = processes().filter((p) => p.pid !== Deno.pid && p.cmdline.some((word) => word.includes(name)));
  const started = ownAgents().filter(({ pid }) => !agents.has(pid) && !marked.some((one) => one.pid === pid));
  return [...marked, ...started];
}

/** All agents that descend from a process. */
function agentsBelow(pid: number): Process[] {
  const all = ownAgents();
  const found = all.filter(({ ppid }) => ppid === pid);
  for (const one of found) found.push(...all.filter(({ ppid }) => ppid === one.pid));
  return found;
}

const PLACES: [string, () => Promise<Place>, string[]][] = [
  ["all namespaces", () => Place.all(), []],
  ["a pid namespace and its owner, without its /proc", () => Place.all(), ["--type", "user,pid"]],
  ["a net namespace and its owner", () => Place.all(), ["--type", "user,net"]],
];

for (const [what, open, options] of PLACES) {
  for (const victim of ["penne", "an agent"]) {
    test(`nothing is left when ${victim} is killed at a random moment, in ${what}`, UNSHARE, async (t) => {
      await using place = await open();
      const agents = new Set(ownAgents().map(({ pid }) => pid));
      let [done, hits] = [0, 0];
      while (done < TRIES) {
        const name = marker();
        // Orphans, some of them in sessions of their own: in the pid namespace that was joined nothing ends them but penne.
        const script = `sleep ${name} & (sleep ${name} &) ; setsid sleep ${name} & sleep ${name}`;
        await Promise.all(Array.from({ length: AT_ONCE }, async () => {
          const argv = [penne(), "enter", ...options, `${place.pid}`, "--", "sh", "-c", script];
          const child = command(argv, {}, { stdin: "null", stdout: "null", stderr: "null" }).spawn();
          await new Promise((resolve) => setTimeout(resolve, Math.random() * WINDOW));
          if (victim === "penne") child.kill("SIGKILL");
          else {
            await until("there is an agent", () => agentsBelow(child.pid).length > 0);
            const all = agentsBelow(child.pid);
            const chosen = all[Math.floor(Math.random() * all.length)];
            // The one that joins gives way to the inner ones.
            if (chosen && await endByAgent(child, chosen.pid)) hits++;
            else if (!chosen) child.kill("SIGKILL");
          }
          const status = await child.status;
          if (victim === "penne") hits += status.signal === "SIGKILL" ? 1 : 0;
          else if (status.signal === null) assertEquals([125, 137].includes(status.code), true, `${status.code}`);
        }));
        done += AT_ONCE;
        await until(`all is gone`, () => left(name, agents).length === 0).catch((error) => {
          throw new Error(`${error.message}: ${JSON.stringify(left(name, agents).slice(0, 4))}`);
        });
      }
      assertEquals(hits > 0, true);
      // The namespaces' own process was none of it.
      assertEquals(Deno.readTextFileSync(`/proc/${place.pid}/cmdline`).startsWith("sleep"), true);
      await t.step(`${hits} of ${TRIES} were killed`, () => {});
    });
  }
}

for (const which of [0, 1, 2]) {
  test(`nothing is left when agent ${which} of three and penne are killed together`, UNSHARE, async () => {
    await using place = await Place.all();
    const agents = new Set(ownAgents().map(({ pid }) => pid));
    for (let i = 0; i < 5; i++) {
      const name = marker();
      const script = `(setsid sleep ${name} &); (sleep ${name} &); exec sleep ${name}`;
      const child = command([penne(), "enter", `${place.pid}`, "--", "sh", "-c", script], {}, { stderr: "null" })
        .spawn();
      const sleeping = () => processes().filter((p) => p.cmdline[0] === "sleep" && p.cmdline[1] === name);
      await until("the command runs", () => sleeping().length === 3);
      const chain = agentsBelow(child.pid);
      assertEquals(chain.length, 3);
      Deno.kill(chain[which]!.pid, "SIGKILL");
      child.kill("SIGKILL");
      await child.status;
      await until(`all is gone: ${JSON.stringify(left(name, agents))}`, () => left(name, agents).length === 0);
    }
  });
}

test("processes that the command leaves behind end with it, and no others do", UNSHARE, async () => {
  await using place = await Place.all();
  const [mine, other] = [marker(), marker()];
  const neighbour = command([penne(), "enter", `${place.pid}`, "--", "sleep", other]).spawn();
  await until("the neighbour runs", () => processes().some(({ cmdline }) => cmdline[1] === other));
  const result = await enter([
    `${place.pid}`,
    "--",
    "sh",
    "-c",
    `setsid sleep ${mine} & (sleep ${mine} &); sleep 0.1; exit 3`,
  ]);
  assertEquals(result.code, 3);
  assertEquals(processes().filter(({ cmdline }) => cmdline.includes(mine)), []);
  assertEquals(processes().filter(({ cmdline }) => cmdline.includes(other) && cmdline[0] === "sleep").length, 1);
  neighbour.kill("SIGTERM");
  assertEquals((await neighbour.status).code, 143);
});

test("with --die-with-parent the command ends by its kill signal when the parent of penne ends", UNSHARE, async () => {
  await using place = await Place.all();
  const file = await Deno.makeTempFile();
  const inner = `trap 'echo got TERM >>${file}; exit' TERM; echo up >>${file}; while :; do sleep 0.02; done`;
  const script = `"$0" enter --die-with-parent --kill-signal TERM ${place.pid} -- sh -c "$1" & exec sleep 1000`;
  const parent = command(["sh", "-c", script, penne(), inner]).spawn();
  const text = () => Deno.readTextFileSync(file);
  await until("the command is up", () => text().includes("up"));
  parent.kill("SIGKILL");
  await parent.status;
  await until("the command was told", () => text().includes("got TERM"));
  await Deno.remove(file);
});

test("the end of the namespaces ends the command, and is reported as such", ["root", ...UNSHARE], async () => {
  const place = await Place.open(["unshare", "-pf", "--mount-proc", "--kill-child"]);
  const child = command([penne(), "enter", `${place.pid}`, "--", "sh", "-c", "echo up; sleep 100"], {}, {
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  await place[Symbol.asyncDispose]();
  assertEquals((await child.status).code, 137);
  await reader.cancel();
  assertStringIncludes(await new Response(child.stderr).text(), "was killed, and the command with it");
});

test("the end of a command is reported even if all agents are stopped", UNSHARE, async () => {
  await using place = await Place.all();
  const name = marker();
  const child = command([penne(), "enter", `${place.pid}`, "--", "sleep", name], {}, { stderr: "null" }).spawn();
  await until("the command runs", () => processes().some(({ cmdline }) => cmdline.join(" ") === `sleep ${name}`));
  assertEquals(agentsBelow(child.pid).length, 3);
  for (const { pid } of agentsBelow(child.pid)) Deno.kill(pid, "SIGSTOP");
  child.kill("SIGTERM");
  assertEquals((await child.status).code, 143);
});

test("penne ends whenever the namespaces end, with a reason and without a trace", UNSHARE, async () => {
  const agents = new Set(ownAgents().map(({ pid }) => pid));
  const said =
    /^penne: (cannot (enter the namespaces|open the \w+ namespace|start a process in the pid namespace|find) |the agent )/;
  for (let i = 0; i < TRIES; i++) {
    const place = await Place.all();
    const entering = enter([`${place.pid}`, "--", "sleep", "100"]);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * WINDOW));
    await place[Symbol.asyncDispose]();
    const { code, stderr } = await entering;
    assertEquals([125, 137].includes(code), true, `${code}`);
    assertMatch(stderr, said);
  }
  await until("all is gone", () => left("no such marker", agents).length === 0);
});

test("the status line says that the command was killed with its agent", UNSHARE, async () => {
  await using place = await Place.all();
  const child = command([penne(), "enter", `${place.pid}`, "--", "sleep", "100"], {}, { stderr: "piped" }).spawn();
  await until(
    "the command runs",
    () =>
      processes().some((p) =>
        p.cmdline.join(" ") === "sleep 100" && agentsBelow(child.pid).some(({ pid }) => pid === p.ppid)
      ),
  );
  Deno.kill(agentsBelow(child.pid).at(-1)!.pid, "SIGKILL");
  const { code, stderr } = await child.output();
  assertEquals(code, 137);
  assertEquals(
    new TextDecoder().decode(stderr),
    "penne: the agent that supervised the command was killed, and the command with it\n",
  );
});

test("Ctrl-Z, fg and Ctrl-C work as for any program at a terminal, and its settings are restored", BASH, async () => {
  await using place = await Place.all();
  const shell = ["/bin/bash", "--norc", "--noprofile", "-i"];
  using pty = new Pty(shell);
  await pty.expect(/READY> /);
  const name = marker();
  pty.type("stty -a | md5sum\n");
  const before = (await pty.expect(/([0-9a-f]{32}) /))[1];
  await pty.expect(/READY> /);
  pty.type(`${penne()} enter ${place.pid} -- sh -c 'stty -echo; echo UP; sleep ${name}; echo WOKEN'\n`);
  await pty.expect(/\r\nUP/);
  const sleeping = () => processes().filter(({ cmdline }) => cmdline.join(" ") === `sleep ${name}`);
  const state = () => /State:\t(.)/.exec(Deno.readTextFileSync(`/proc/${sleeping()[0]!.pid}/status`))![1];
  await until("sleep runs", () => sleeping().length === 1);
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  await until("the command is stopped", () => state() === "T");
  pty.type("fg\n");
  await until("the command goes on", () => state() === "S");
  pty.type("\x03");
  await pty.expect(/READY> /);
  pty.type("echo code $?\n");
  await pty.expect(/code 130/);
  pty.type("stty -a | md5sum\n");
  assertEquals((await pty.expect(/([0-9a-f]{32}) /))[1], before);
  pty.type("exit\n");
  await pty.end();
  assertEquals(sleeping(), []);
});

test("a shell inside has job control", BASH, async () => {
  await using place = await Place.all();
  using pty = new Pty([penne(), "enter", `${place.pid}`, "--", "/bin/bash", "--norc", "--noprofile", "-i"]);
  const settings = pty.settings;
  await pty.expect(/READY> /);
  const name = marker();
  pty.type(`sleep ${name}\n`);
  await until("sleep runs", () => processes().some(({ cmdline }) => cmdline.join(" ") === `sleep ${name}`));
  pty.type("\x1a");
  await pty.expect(/Stopped +sleep/);
  pty.type("exit 3\nexit 3\n");
  assertEquals((await pty.end()).code, 3);
  assertEquals(pty.settings, settings);
  assertEquals(pty.foreground, pty.pid);
});

for (const victim of ["penne", "the first agent", "the last agent"]) {
  test(`the terminal is restored when ${victim} is killed`, BASH, async () => {
    await using place = await Place.all();
    for (let i = 0; i < 5; i++) {
      const name = marker();
      const script = `trap : INT; echo READY; ${penne()} enter ${place.pid} -- sh -c ` +
        `'stty raw -echo; sleep ${name} & sleep ${name}'; echo OVER; sleep 1000`;
      using pty = new Pty(["/bin/sh", "-mc", script]);
      const settings = pty.settings;
      await pty.expect(/READY/);
      await until(
        "the command runs",
        () => processes().filter(({ cmdline }) => cmdline.join(" ") === `sleep ${name}`).length === 2,
      );
      const running = processes().find((p) => p.ppid === pty.pid && p.cmdline[1] === "enter")!;
      const below = agentsBelow(running.pid);
      Deno.kill(
        victim === "penne" ? running.pid : victim === "the first agent" ? below[0]!.pid : below.at(-1)!.pid,
        "SIGKILL",
      );
      await pty.expect(/OVER/);
      await until("the settings are back", () => pty.settings === settings);
      const alive = (group: number) => group === pty.pid || processes().some(({ pid }) => pid === group);
      await until("the foreground is a living group's", () => alive(pty.foreground));
      await until(
        "all is gone",
        () => left(name, new Set(ownAgents().map(({ pid }) => pid))).every(({ pid }) => pid === pty.pid),
      );
    }
  });
}

test(
  "the whole process group of a script can be killed, and no process of it stays in the namespaces",
  UNSHARE,
  async () => {
    await using place = await Place.all();
    const agents = new Set(ownAgents().map(({ pid }) => pid));
    const name = marker();
    const script = `echo $$; "$0" enter ${place.pid} -- sh -c '(setsid sleep ${name} &); sleep ${name}'; :`;
    const child = command(["setsid", "-w", "sh", "-c", script, penne()], {}, { stdout: "piped", stderr: "null" })
      .spawn();
    const reader = child.stdout.getReader();
    const group = Number(new TextDecoder().decode((await reader.read()).value));
    await until(
      "the command runs",
      () => processes().filter((p) => p.cmdline.join(" ") === `sleep ${name}`).length === 2,
    );
    Deno.kill(-group as number, "SIGKILL");
    await until("all is gone", () => left(name, agents).length === 0);
    await reader.cancel();
    await child.status;
  },
);
