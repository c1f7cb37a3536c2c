// Text that others chose: names, paths and targets neither move a terminal's cursor nor make lines of their own.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { command, penne, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { as, Place } from "../kept/place.ts";

/** Names of programs, which a process gets as its own: at most 15 bytes. */
const NAMES = ["\x1b[31m\x1b]0;P\x07", "x\nhint: rm -rf", "\u009b31m\u202eab\u200b", "\x7f\xad\u2028\ufeff"];
/** The same as penne shows them. */
const SHOWN = [
  "\\u001b[31m\\u001b]0;P\\u0007",
  "x\\nhint: rm -rf",
  "\\u009b31m\\u202eab\\u200b",
  "\\u007f\\u00ad\\u2028\\ufeff",
];

/** The lines of a message. */
const MESSAGE = /^(cannot |hint: )/;

/** Checks that a text has no character that controls a terminal or is invisible, and no line that is not penne's own. */
function assertTame(
  text: string,
  line = /^(penne: |hint: | {2}|\{|[A-Za-z_.0-9]+: |\d{4}-\d\d-\d\dT\S+Z penne: |$)/,
): void {
  for (const one of text.split("\n")) {
    assertMatch(one, line);
    assert(!/[\p{Cc}\p{Cf}\u2028\u2029]/u.test(one), `in ${JSON.stringify(text)}`);
    assert(!/^hint: rm/.test(one), text);
  }
}

/** Starts a process of each name in a kept set; the result ends them. */
async function occupy(place: Place, name: string): Promise<AsyncDisposable> {
  const directory = Deno.makeTempDirSync({ prefix: "penne-names-" });
  Deno.chmodSync(directory, 0o755);
  const children = NAMES.map((comm) => {
    const file = `${directory}/${comm.replaceAll("/", "")}`;
    Deno.copyFileSync("/bin/sleep", file);
    Deno.chmodSync(file, 0o755);
    const enter = as(place.user, [penne(), "enter", "--dir", place.directory, name, "--", file, "100"]);
    return command(enter, { cwd: "/" }, { stdin: "null" }).spawn();
  });
  await until("all are in it", () => {
    const pids = [...Deno.readDirSync("/proc")].flatMap(({ name }) => /^\d+$/.test(name) ? [name] : []);
    const comms = pids.map((pid) => {
      try {
        return Deno.readTextFileSync(`/proc/${pid}/comm`).slice(0, -1);
      } catch {
        return "";
      }
    });
    return NAMES.every((comm) => comms.includes(comm));
  });
  return {
    async [Symbol.asyncDispose]() {
      for (const child of children) child.kill("SIGTERM");
      for (const child of children) await child.status;
      Deno.removeSync(directory, { recursive: true });
    },
  };
}

test(
  "names of processes are escaped in errors, logs, log files and inspections",
  ["root", "user"],
  async (t) => {
    using place = new Place(TEST_USER);
    await place.must("keep", "atk", "--unshare", "user,uts", "--", "true");
    await using _occupied = await occupy(place, "atk");
    const root = place.for(null);
    await t.step("drop", async () => {
      const { stderr } = await place.run("drop", "atk");
      assertTame(stderr);
      for (const name of SHOWN) assertStringIncludes(stderr, `(${name})`);
      assertEquals(stderr.split("\n").length, 3); // the error, its one hint, and nothing
    });
    await t.step("drop, with a log in JSON", async () => {
      const { stderr } = await place.run("drop", "atk", "--log-format", "json");
      assertTame(stderr);
      const { msg } = JSON.parse(stderr);
      assertTame(msg, MESSAGE);
      assertEquals(msg.split("\n").length, 2);
    });
    await t.step("drop, with a log file", async () => {
      const log = `${place.directory}/log`;
      await place.run("drop", "atk", "--log-file", log, "--log-level", "debug");
      const text = Deno.readTextFileSync(log);
      assertTame(text, /^(\d{4}-\d\d-\d\dT\S+Z penne: |hint: --force| {4}at |$)/);
      for (const name of SHOWN) assertStringIncludes(text, name);
    });
    await t.step("inspect, as text and as JSON", async () => {
      const text = await place.must("inspect", "atk");
      assertTame(text);
      for (const name of SHOWN) assertStringIncludes(text, name);
      const json = await place.must("inspect", "atk", "--json");
      assertTame(json);
      const comms = JSON.parse(json).occupants.map(({ comm }: { comm: string }) => comm);
      for (const name of NAMES) assert(comms.includes(name), JSON.stringify(comms));
    });
    await t.step("watch", async () => {
      const program = `${Deno.makeTempDirSync({ prefix: "penne-names-" })}/${NAMES[2]}`;
      Deno.copyFileSync("/bin/true", program);
      Deno.chmodSync(program, 0o755);
      const { stdout } = await sh([penne(), "watch", "--json", "--", program]);
      assertTame(stdout);
      assertStringIncludes(
        stdout,
        JSON.stringify(NAMES[2]).slice(1, -1).replaceAll("\u009b", "\\u009b")
          .replaceAll("\u202e", "\\u202e").replaceAll("\u200b", "\\u200b"),
      );
      Deno.removeSync(program.slice(0, program.lastIndexOf("/")), { recursive: true });
    });
    assertEquals((await root.run("inspect", "atk")).code, 1); // it is not root's
  },
);

test("words of the command line and paths are escaped in every error", ["root", "user"], async () => {
  const evil = "\x1b[2J\nhint: rm -rf \u202e\u009b";
  const words: string[][] = [
    [evil],
    [`--${evil}`],
    ["run", `--${evil}`],
    ["run", "--map", evil, "--", "true"],
    ["run", "--chdir", `/${evil}`, "--", "true"],
    ["run", "--net=none", "--", `/bin/${evil}`],
    ["run", "--net=none", "--", evil],
    ["run", "--log-file", `/proc/${evil}/x`, "--", "true"],
    ["run", "--pid-file", `/proc/${evil}/x`, "--", "true"],
    ["run", "--interface", evil, "--", "true"],
    ["run", "--env", evil, "--", "true"],
    ["enter", `./${evil}`, "--", "true"],
    ["enter", evil, "--", "true"],
    ["enter", `netns:${evil}`, "--", "true"],
    ["attach", `./${evil}`],
    ["attach", evil],
    ["wait", "--for", evil, "1"],
    ["watch", "--cgroup", `/${evil}`],
    ["watch", "-o", `/proc/${evil}/x`],
    ["watch", "--backend", evil],
    ["keep", evil, "--", "true"],
    ["keep", "x", "--dir", `/${evil}`, "--base", `/${evil}`, "--", "true"],
    ["keep", "x", "--user", evil, "--", "true"],
    ["inspect", evil],
    ["inspect", "x", "--dir", evil],
    ["drop", evil],
    ["drop", "x", "--dir", `/tmp/${evil}`],
    ["nsexec", "--dialect", evil, "--", "true"],
    ["nsexec", "--", `/${evil}`],
  ];
  for (const args of words) {
    for (const more of [[], ["--log-format=json"]]) {
      if (more.length && args.length === 1) continue; // no option before the command
      const [first, ...rest] = args;
      const { code, stdout, stderr } = await sh([penne(), first!, ...more, ...rest]);
      assert(code !== 0, args.join(" "));
      assertEquals(stdout, "");
      assertTame(stderr);
      if (stderr.startsWith("{")) assertTame(JSON.parse(stderr.split("\n")[0]!).msg, MESSAGE);
    }
  }
});

test("status lines have no character that controls a terminal", ["root", "tun", "package:iproute2"], async () => {
  const sleeper = new Deno.Command("unshare", { args: ["-n", "sleep", "100"] }).spawn();
  try {
    await until("it has a namespace of its own", () => {
      try {
        return Deno.readLinkSync(`/proc/${sleeper.pid}/ns/net`) !== Deno.readLinkSync("/proc/self/ns/net");
      } catch {
        return false;
      }
    });
    const directory = Deno.makeTempDirSync({ prefix: "penne-names-" });
    const link = `${directory}/p\u009b4\u202e`;
    Deno.symlinkSync(`/proc/${sleeper.pid}/ns/net`, link);
    const attach = `exec "$0" attach --status-fd 3 --log-level info --pid-file "$2" "$1" 3>&1 >/dev/null`;
    const child = command(["sh", "-c", attach, penne(), link, `${directory}/pid`], {}, {
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    await until("it serves", () => [...Deno.readDirSync(directory)].some(({ name }) => name === "pid"));
    Deno.removeSync(link);
    const { stdout, stderr } = await child.output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertTame(text(stdout));
    assertTame(text(stderr));
    assertEquals(JSON.parse(text(stdout).split("\n")[0]!).targets[0].target, link);
    assertStringIncludes(text(stderr), 'left "');
    Deno.removeSync(directory, { recursive: true });
  } finally {
    sleeper.kill("SIGKILL");
    await sleeper.status;
  }
});
