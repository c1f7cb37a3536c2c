// Completion of words, from the option tables: what is offered, and that all of it is understood.

import { assert, assertEquals } from "@std/assert";
import { completeCommand, type Look } from "../../../mod/cli/completion/complete.ts";
import { look } from "../../../mod/cli/completion/live.ts";
import { SPEC_OF } from "../../../mod/cli/completion/specs.ts";
import { valuesOf } from "../../../mod/cli/completion/values.ts";
import { COLUMN_NAMES } from "../../../mod/cli/listing/columns.ts";
import { allOptions } from "../../../mod/cli/options/table.ts";
import { SUMMARIES } from "../../../mod/cli/top_level.ts";
import { SPECS } from "../../../packaging/man.ts";
import { test } from "../../lib/helpers.ts";

const NOW: Look = (kind) =>
  ({ interfaces: ["lo", "eth0"], netns: ["blue"], kept: ["build"], pids: ["1", "4711"] })[kind].map((
    name,
  ) => [name, kind]);

async function complete(line: string) {
  const [command = "", ...words] = line.split(" ");
  const { candidates, ...rest } = completeCommand(await SPEC_OF[command]!(), words, NOW, Object.keys(SUMMARIES));
  return { words: candidates.map(([word]) => word), ...rest };
}

test("every command can be completed, by its own table", async () => {
  assertEquals(Object.keys(SPEC_OF).toSorted(), SPECS.map(({ name }) => name).toSorted());
  for (const [name, load] of Object.entries(SPEC_OF)) assertEquals((await load()).name, name);
});

test("every option that is shown is offered, and no other", async () => {
  for (const spec of SPECS) {
    const { words } = await complete(`${spec.name} --`);
    const shown = allOptions(spec).filter(({ help }) => help !== null).map(({ name }) => `--${name}`);
    assertEquals(words.toSorted(), shown.toSorted(), spec.name);
  }
});

test("words that are offered for an option stand in its help", () => {
  const unnamed = ["kill-signal", "type", "tcp-ports", "udp-ports", "tcp-ns", "udp-ns"]; // all signals, all types, pasta(1)
  for (const spec of SPECS) {
    for (const option of allOptions(spec)) {
      if (!option.value || unnamed.includes(option.name)) continue;
      for (const word of valuesOf(spec.name, option).words ?? []) {
        if (spec.name === "pasta" || word === "none") continue; // pasta's own help is short
        assert(option.help?.toLowerCase().includes(word.toLowerCase()), `${spec.name} --${option.name}: ${word}`);
      }
    }
  }
  assertEquals(
    valuesOf("ls", allOptions(SPECS.find(({ name }) => name === "ls")!).find(({ name }) => name === "columns")!).words,
    COLUMN_NAMES,
  );
});

test("a word is completed by where it stands", async () => {
  const cases: Record<string, string[]> = {
    "run --net ": ["tap", "none", "host"],
    "keep x --net ": ["none", "host"],
    "run --net=h": ["--net=host"],
    "run --unshare user,m": ["user,mnt"],
    "run --unshare=user,": ["mnt", "pid", "ipc", "uts", "net", "cgroup", "time", "all"].map((t) =>
      `--unshare=user,${t}`
    ),
    "run -i ": ["lo", "eth0"],
    "run -4i e": ["eth0"],
    "attach ": ["blue", "1", "4711"],
    "attach --background b": ["blue"],
    "enter ": ["build", "netns:blue", "1", "4711"],
    "drop bu": ["build"],
    "ports ": ["ls", "add", "del"],
    "ports add 47": ["4711"],
    "watch --pid=1,": ["--pid=1,4711"],
    "wait --for g": ["gone"],
    "wait blue --for ": ["present", "gone"],
    "doctor at": ["attach"],
    "completions f": ["fish"],
    "run --net host --net": ["--netmask"], // given already
    "run --allow-": [],
  };
  for (const [line, words] of Object.entries(cases)) assertEquals((await complete(line)).words, words, line);
  assert((await complete("run --env A=1 --en")).words.includes("--env")); // may be repeated
  assertEquals((await complete("run --root ")).shell, "dirs");
  assertEquals((await complete("run --pcap=")).shell, "files");
  assertEquals((await complete("run --unshare u")).open, true);
});

test("the command line of another program begins where the parser lets it begin", async () => {
  const at: Record<string, number | null> = {
    "run ": null,
    "run --net none ": null,
    "run ls -": 0,
    "run --net none ls -": 2,
    "run -- ls -": 1,
    "run -- --odd -": 1,
    "enter 1 ": null,
    "enter 1 ls ": 1,
    "enter 1 --type net ls ": 3,
    "enter 1 -- ls ": 2,
    "watch -- sh ": 1,
    "wait x -- sh ": 2,
    "keep x -- sh ": 2,
    "attach x y ": null,
  };
  for (const [line, index] of Object.entries(at)) assertEquals((await complete(line)).command, index, line);
  for (const line of ["run ", "run -- ", "enter 1 ", "watch -- ", "keep x -- "]) {
    assertEquals((await complete(line)).shell, "commands", line);
  }
});

test("what there is now is found", () => {
  assert(look("interfaces").some(([name]) => name === "lo"));
  assert(look("pids").some(([pid, name]) => pid === `${Deno.pid}` && name === "deno"));
  for (const kind of ["netns", "kept"] as const) look(kind);
});
