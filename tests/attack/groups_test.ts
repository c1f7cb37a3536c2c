// Permission that a file denies to a group: only a map of subordinate ids lets a command leave the group, as newgidmap has it.

import { assertEquals } from "@std/assert";
import { penne, sh, test, TEST_USER } from "../lib/helpers.ts";

const GROUP = "4242";
const READ = `import os, sys
try:
    os.setgroups([])
except PermissionError:
    pass
print(open(sys.argv[1]).read(), end="")`;

test(
  "a command can leave its supplementary groups with --map auto only",
  ["root", "user", "package:uidmap", "package:python3", "package:util-linux"],
  async () => {
    const directory = await Deno.makeTempDir({ prefix: "penne-groups-" });
    await Deno.chmod(directory, 0o755);
    const file = `${directory}/file`;
    await Deno.writeTextFile(file, "denied to the group\n");
    await Deno.chown(file, 0, Number(GROUP));
    await Deno.chmod(file, 0o604);
    const read = async (...wrapper: string[]) => {
      const user = ["setpriv", "--reuid", TEST_USER, "--regid", TEST_USER, "--groups", GROUP];
      const { stdout } = await sh([...user, ...wrapper, "python3", "-c", READ, file], { cwd: "/" });
      return stdout;
    };
    assertEquals(await read(), "");
    for (const map of ["root", "self", "none"]) {
      assertEquals([map, await read(penne(), "run", "--net=none", "--map", map, "--")], [map, ""]);
    }
    assertEquals(await read(penne(), "run", "--net=none", "--map", "auto", "--"), "denied to the group\n");
    await Deno.remove(directory, { recursive: true });
  },
);
