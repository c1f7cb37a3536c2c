// Completion in real shells, on a terminal: a line is typed, with a tab in it, and the program says what it was given.

import { assertEquals } from "@std/assert";
import { penne, sh, test } from "../../lib/helpers.ts";
import { Pty } from "../../lib/pty.ts";

/** How a shell is started so that nothing of the machine's matters, and loads the script. */
const SHELLS = {
  bash: { argv: ["bash", "--norc", "--noprofile", "-i"], load: ". ./script" },
  zsh: { argv: ["zsh", "-f", "-i"], load: "autoload -U compinit; compinit -D -u; . ./script" },
  fish: { argv: ["fish", "--no-config", "--private", "-i"], load: ". ./script" },
} as const;

/** What is typed, and the words that the program gets. */
const LINES: readonly [string, string[]][] = [
  ["doc\t", ["doctor"]],
  ["run --keep-v\t", ["run", "--keep-views"]],
  ["run --net no\t true", ["run", "--net", "none", "true"]],
  ["run --net=no\t true", ["run", "--net=none", "true"]],
  ["run --unshare user,mn\t", ["run", "--unshare", "user,mnt"]],
  ["run -i l\t", ["run", "-i", "lo"]],
  ["attach ze\t", ["attach", "zebra"]],
  ["drop qu\t", ["drop", "quagga"]],
  ["enter netns:ze\t", ["enter", "netns:zebra"]],
  ["run --root di\t", ["run", "--root", "directory"]],
  ["run --root=di\t", ["run", "--root=directory"]],
  ["run penne-pro\t", ["run", "penne-program"]],
  ["run -- penne-program di\t", ["run", "--", "penne-program", "directory"]],
];

/** Makes the host: names of namespaces and of a kept set, and a program that says what it is given. */
const MAKE = `set -e; mount -t tmpfs none /run; mkdir -p /run/netns /run/penne/ns /run/t/bin /run/t/directory; cd /run/t
touch /run/netns/zebra /run/penne/ns/quagga.info
"$1" completions "$2" >script
printf '#!/bin/sh\\n[ "$1" = __complete ] && exec %s "$@"\\nprintf "got:"; printf "<%%s>" "$@"; echo :end\\n' "$1" >bin/penne
printf '#!/bin/sh\\n' >bin/penne-program; chmod 755 bin/*; mkdir home
shift 2; exec env -i HOME=/run/t/home PATH="/run/t/bin:$PATH" TERM=vt100 LANG=C.UTF-8 "$@"`;

for (const shell of ["bash", "zsh", "fish"] as const) {
  const { argv, load } = SHELLS[shell];
  test(`${shell} completes command lines of penne`, [
    ...["root", "package:util-linux", `package:${shell}`] as const,
  ], async (t) => {
    using terminal = new Pty(
      ["/usr/bin/unshare", "--mount", "--net", "sh", "-c", MAKE, "sh", penne(), shell, ...argv],
      {
        env: { PATH: Deno.env.get("PATH")! },
      },
    );
    terminal.type(`${load}; echo load""ed\r`);
    await terminal.expect(/loaded/);
    for (const [line, words] of LINES) {
      await t.step(line.replace("\t", "<Tab>"), async () => {
        terminal.type(`penne ${line}\r`);
        const [, got] = await terminal.expect(/got:(.*?):end/s);
        // zsh takes the slash away again where a line ends with it.
        assertEquals(got!.replaceAll("/>", ">").split(/[<>]/).filter((word) => word !== ""), words);
      });
    }
    terminal.type("exit\r");
    await terminal.end();
  });
}

test("penne completions names the shells that it knows", async () => {
  const cases: Record<string, RegExp> = {
    "": /^penne: cannot use completions: SHELL is missing\nhint: it is one of bash, zsh, fish\n/,
    "zhs": /^penne: cannot use completions zhs: it is not one of bash, zsh, fish\nhint: did you mean zsh\?\n/,
    "bash zsh": /^penne: cannot use completions with more than one shell\n/,
  };
  for (const [words, message] of Object.entries(cases)) {
    const { code, stderr } = await sh([penne(), "completions", ...words.split(" ").filter(Boolean)]);
    assertEquals([code, message.test(stderr)], [2, true], stderr);
  }
});
