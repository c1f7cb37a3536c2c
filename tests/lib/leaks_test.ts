// The leak tracer sees each kind of thing that a test can leave behind.

import { assertRejects } from "@std/assert";
import { test } from "./helpers.ts";
import { withoutLeaks } from "./leaks.ts";

/** Fails unless the tracer names what `leak` leaves; `undo` takes it away again. */
async function traced(
  leak: () => void | Promise<void>,
  words: string,
  undo: () => void | Promise<void>,
): Promise<void> {
  try {
    await assertRejects(() => withoutLeaks(leak, 0, true), Error, words);
  } finally {
    await undo();
  }
}

test("withoutLeaks() names a descriptor that stays open", async () => {
  let file: Deno.FsFile | undefined;
  await traced(
    () => {
      file = Deno.openSync("/etc/passwd");
    },
    "/etc/passwd",
    () => file?.close(),
  );
});

test(
  "withoutLeaks() names a child, and a process that has left the family and cleared its environment",
  async () => {
    let child: Deno.ChildProcess | undefined;
    const end = async () => {
      child?.kill("SIGKILL");
      await child?.status;
    };
    await traced(
      () => {
        child = new Deno.Command("sleep", { args: ["100"], clearEnv: true }).spawn();
      },
      "sleep 100",
      end,
    );
    let orphan = 0;
    await traced(
      async () => {
        const script = "setsid sleep 100 >/dev/null 2>&1 & echo $!";
        const { stdout } = await new Deno.Command("sh", { args: ["-c", script] }).output();
        orphan = Number(new TextDecoder().decode(stdout));
      },
      "sleep 100",
      () => {
        if (orphan) Deno.kill(orphan, "SIGKILL");
      },
    );
  },
);

test("withoutLeaks() names a mount and a namespace", ["root", "package:util-linux", "package:mount"], async () => {
  const directory = Deno.makeTempDirSync({ prefix: "penne-leaks-" });
  const must = async (program: string, ...args: string[]) => {
    const { success, stderr } = await new Deno.Command(program, { args }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
  };
  const file = `${directory}/uts`;
  Deno.writeTextFileSync(file, "");
  try {
    await traced(
      () => must("mount", "-t", "tmpfs", "none", directory),
      `mount ${directory}`,
      () => must("umount", directory),
    );
    await traced(() => must("unshare", `--uts=${file}`, "true"), `mount ${file}`, () => must("umount", file));
    let child: Deno.ChildProcess | undefined;
    await traced(
      async () => {
        child = new Deno.Command("unshare", { args: ["-u", "sh", "-c", "echo; exec sleep 100"], stdout: "piped" })
          .spawn();
        const reader = child.stdout.getReader();
        await reader.read();
        await reader.cancel();
      },
      "namespace uts:[",
      async () => {
        child?.kill("SIGKILL");
        await child?.status;
      },
    );
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

test("withoutLeaks() waits for what is about to end", async () => {
  let child: Deno.ChildProcess | undefined;
  await withoutLeaks(() => {
    child = new Deno.Command("sleep", { args: ["0.3"] }).spawn();
  });
  await child?.status;
});
