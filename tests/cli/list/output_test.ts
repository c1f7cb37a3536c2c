// `penne ls`: its table, tree and JSON, on terminals and in pipes, and what it refuses.

import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { list, type ListOptions } from "../../../mod/list/mod.ts";
import { widthOf } from "../../../mod/cli/listing/width.ts";
import { penne, sh, test, until } from "../../lib/helpers.ts";
import { must, NetLab } from "../../lib/netlab.ts";
import { Pty } from "../../lib/pty.ts";
import { hold, ls } from "./hold.ts";

/** How many namespaces there are at once in a test; thousands on request. */
const MANY = Number(Deno.env.get("PENNE_NAMESPACES") ?? 1000);

test("A reader that goes away is no error", ["package:bash"], async () => {
  const { code, stdout, stderr } = await sh(["bash", "-c", `set -o pipefail; "${penne()}" ls | head -1`]);
  assertEquals([code, stdout.split(/\s+/)[0]], [0, "TYPE"], stderr);
});

test("A full disk is one", async () => {
  for (const [args, what] of [["ls", "the list"], ["doctor --json wait", "what was found out"]] as const) {
    const { code, stderr } = await sh(["sh", "-c", `"${penne()}" ${args} >/dev/full`]);
    assertEquals(code, 1);
    assertStringIncludes(stderr, `cannot write ${what}: No space left on device (ENOSPC)`);
  }
});

test(
  "No line is longer than the terminal, however narrow, and none has colours",
  ["root", "package:bash"],
  async () => {
    await using lab = new NetLab();
    const wide = lab.start(["unshare", "--uts", "bash", "-c", "exec -a 'wide 日本語日本語日本語 name' sleep 1000"]);
    await until("it is there", () => Deno.readTextFileSync(`/proc/${wide.child.pid}/comm`) === "sleep\n");
    for (const columns of [200, 80, 50, 20, 1]) {
      using pty = new Pty([
        "/bin/sh",
        "-c",
        `stty cols ${columns}; exec "${penne()}" ls --tree -o +maps ${wide.child.pid}`,
      ], {
        env: { LC_ALL: "C.UTF-8", TERM: "xterm-256color", CLICOLOR_FORCE: "1" },
      });
      assertEquals((await pty.end()).code, 0);
      const lines = pty.text.split("\r\n").filter((line) => line && !line.startsWith("penne: "));
      assert(lines.length > 5, pty.text);
      for (const line of lines) assert(widthOf(line) <= columns, `${columns}: ${line}`);
      assert(!pty.text.includes("\x1b"), "there are no colours");
      if (columns === 200) assertMatch(pty.text, /[├└]─.*wide 日本語日本語日本語 name 1000\r\n/);
    }
  },
);

test("Many namespaces are all listed, once each", ["root", "package:python3"], async () => {
  await using held = await hold(["many", `${MANY}`]);
  const expected = held.name.split(" ").sort();
  const { namespaces } = await ls(["--type", "uts"]);
  const all = namespaces.map(({ type, inum }) => `${type}:[${inum}]`);
  assertEquals(new Set(all).size, all.length);
  assertEquals(expected.filter((one) => !all.includes(one)), []);
  const { stdout, code } = await sh([penne(), "ls", "--orphans", "-t", "uts", "-o", "inum", "--tree"]);
  assertEquals(code, 0);
  const lines = new Set(stdout.split("\n").map((line) => /\d+/.exec(line)?.[0]));
  assertEquals(expected.filter((one) => !lines.has(/\d+/.exec(one)![0])), []);
});

test("The tree has user and PID namespaces below their parents, all others below their owners", ["root"], async () => {
  await using lab = new NetLab();
  const inner = "unshare --user --map-root-user --pid --fork --uts sleep 1000";
  const outer = lab.start(["unshare", "--user", "--map-root-user", "--pid", "--fork", "sh", "-c", `${inner}; :`]);
  const children = (pid: number) => Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim();
  let deepest = outer.child.pid;
  await until("they are there", () => {
    deepest = outer.child.pid;
    for (let next; (next = children(deepest)) !== "";) deepest = Number(next);
    return Deno.readTextFileSync(`/proc/${deepest}/comm`) === "sleep\n";
  });
  const { stdout } = await sh([penne(), "ls", "--tree"], { env: { LC_ALL: "C" } });
  const lines = stdout.split("\n");
  const place = (pid: number, kind: string) => {
    const inum = /\d+/.exec(Deno.readLinkSync(`/proc/${pid}/ns/${kind}`))![0];
    return lines.findIndex((line) => line.includes(` ${inum} `));
  };
  const depth = (at: number) => lines[at]!.search(/[a-z]/) / 2;
  const first = Number(children(outer.child.pid));
  const at = (kind: string) => [place(first, kind), place(deepest, kind)] as const;
  const [[user, user2], [pid, pid2], [, uts]] = [at("user"), at("pid"), at("uts")];
  assertEquals([user, pid].map(depth), [1, 2]); // the pid namespace of the host is below its user namespace
  assertEquals([user2, pid2, uts].map(depth), [2, 3, 3]);
  assert(user < user2 && user2 < uts && pid < pid2, "what is below comes behind");
  Deno.kill(first, "SIGKILL"); // PID 1, with which all others end
});

test("Columns are chosen and added", ["root"], async () => {
  const head = async (...args: string[]) =>
    (await sh([penne(), "ls", ...args])).stdout.split("\n")[0]!.trim().split(/ +/);
  assertEquals(await head("-o", "inum,TYPE,id"), ["INUM", "TYPE", "ID"]);
  assertEquals(await head("-o", "+maps"), ["TYPE", "INUM", "UID", "PROCS", "PID", "NAMES", "MAPS", "COMMAND"]);
  const { stdout } = await sh([penne(), "ls", "-t", "user", "-o", "maps", `${Deno.pid}`]);
  assertMatch(stdout, /^MAPS\n(\d+:\d+:\d+,?)+\n$/);
});

test("What cannot be listed is refused", async () => {
  const refused = async (args: string[], code: number, message: string) => {
    const result = await sh([penne(), "ls", ...args]);
    assertEquals([result.code, result.stdout], [code, ""], args.join(" "));
    assertStringIncludes(result.stderr, message);
  };
  await refused(["--type", "nett"], 2, "hint: did you mean net?");
  await refused(["-o", "inumm"], 2, "hint: did you mean inum?");
  await refused(["-o", "inum,inum"], 2, "a column is named twice");
  await refused(["-o", ""], 2, "");
  await refused(["4194303"], 1, 'cannot find "4194303": no process with this PID is visible here');
  await refused(["4026531000"], 1, "no namespace with this number can be seen");
  await refused(["id:99999999999999"], 1, "no namespace with this id can be seen");
  await refused(["/etc/passwd"], 1, 'cannot find "/etc/passwd": it is not a namespace');
  await refused(["/dev/null"], 1, "it is not a namespace");
  await refused(["/no/such"], 1, "No such file or directory (ENOENT)");
  await refused(["no-such-name"], 1, "hint: penne ls -o +names lists the names");
});

test("The library lists, and checks its options", async () => {
  const { namespaces } = await list({ of: [`${Deno.pid}`], holders: true, types: ["mnt"] });
  const [own] = namespaces;
  assertEquals(`mnt:[${own!.inum}]`, Deno.readLinkSync("/proc/self/ns/mnt"));
  assert(own!.holders!.some(({ kind, pid }) => kind === "process" && pid === Deno.pid));
  const wrong = (options: unknown, message: string) =>
    assertRejects(() => list(options as ListOptions), TypeError, message);
  await wrong({ type: ["net"] }, 'options has no "type"; did you mean types?');
  await wrong({ types: ["nett"] }, "as options.types[0]");
  await wrong({ of: [7] }, "cannot use 7 as options.of[0]: it is not a string");
  await wrong({ holders: "yes" }, "options.holders");
});

test("Twenty at once all list", ["root"], async () => {
  const results = await Promise.all(Array.from({ length: 20 }, () => must([penne(), "ls", "-t", "user", "--json"])));
  for (const text of results) assert(JSON.parse(text).namespaces.length > 0);
});
