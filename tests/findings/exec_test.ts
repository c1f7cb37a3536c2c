// Why a command cannot be executed: what its file shows.

import { assertEquals } from "@std/assert";
import { penne, run, sh, test } from "../lib/helpers.ts";
import { assertRefused, fixIn } from "./lab/hosts.ts";

test("a file that may not be executed: each reason is told apart", ["user"], async () => {
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o755);
  const file = `${directory}/file`;
  await Deno.writeTextFile(file, "#!/bin/sh\necho ran\n");
  const refused = async (path: string, ...hints: string[]) => {
    const result = await run(["--net=none", "--", path], { user: true });
    assertEquals(result.code, 126);
    return assertRefused(result, `cannot run "${path}": Permission denied (EACCES)`, ...hints);
  };
  await refused(directory, `${directory} is a directory`);
  await refused("/dev/null", "/dev/null is not a plain file");
  const [hint] = await refused(file, `${file} has no execute permission; chmod +x ${file}`);
  assertEquals((await sh(["sh", "-c", fixIn(hint!)])).code, 0);
  assertEquals((await run(["--net=none", "--", file], { user: true })).stdout, "ran\n");
  await Deno.chmod(file, 0o700);
  if (Deno.uid() === 0) {
    await refused(file, `the mode 700 of ${file}, of user 65534 and group 65534, does not let the command execute it`);
  }
  await Deno.chmod(directory, 0o700);
  if (Deno.uid() === 0) await refused(file); // whatever is in there cannot be looked at
  await Deno.remove(directory, { recursive: true });
});

test("a file on a noexec mount is told apart", ["package:util-linux"], async () => {
  const script = `mount -t tmpfs -o noexec none /mnt; cp /bin/true /mnt/; exec "$0" run --net=none -- /mnt/true`;
  const result = await sh(["unshare", "-Urm", "sh", "-c", script, penne()]);
  assertRefused(
    result,
    'cannot run "/mnt/true": Permission denied (EACCES)',
    "/mnt/true is on a file system that is mounted with noexec",
  );
});
