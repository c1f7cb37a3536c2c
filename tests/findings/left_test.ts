// What list() and doctor() leave in a program that goes on: no process, not even a zombie, which would hold namespaces, no
// descriptor, mount or file.

import { assert, assertEquals } from "@std/assert";
import { type Need, penne, ROOT, sh, test } from "../lib/helpers.ts";
import { becomes, NetLab } from "../lib/netlab.ts";
import { DOCKER, filtered } from "./lab/hosts.ts";

const SCRIPT = `${ROOT}tests/findings/lab/left.ts`;
const NEEDS: readonly Need[] = ["root", "user namespaces", "package:util-linux"];

/** Runs the program on a host, which is given as words before the command line. */
async function check(host: readonly string[]): Promise<void> {
  await using lab = new NetLab();
  // Its addresses are read by an agent that joins it.
  await becomes(lab.start(["unshare", "--user", "--map-root-user", "--net", "sleep", "1000"]), "sleep");
  const directory = await Deno.makeTempDir({ prefix: "penne-left-" });
  try {
    const places = [`${directory}/run`, `${directory}/tmp`];
    for (const place of places) await Deno.mkdir(place, { mode: 0o700 });
    const env = [`XDG_RUNTIME_DIR=${places[0]}`, `TMPDIR=${places[1]}`];
    const deno = [Deno.execPath(), "run", "--quiet", "--no-check", "-A", SCRIPT, ...places];
    const { code, stdout, stderr } = await sh(["unshare", "--mount", ...host, "/usr/bin/env", ...env, ...deno]);
    assertEquals([code, stderr], [0, ""]);
    const [first, second] = JSON.parse(stdout);
    assertEquals([first.children, first.files], [[], []]);
    // What others unmount goes from here, too; and the runtime may close something.
    for (const what of ["mounts", "descriptors"]) {
      assertEquals(second[what].filter((one: string) => !first[what].includes(one)), []);
      assert(second[what].length <= first[what].length, what);
    }
    for (const what of ["children", "namespaces", "files"]) assertEquals(second[what], first[what]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

test("list() and doctor() leave nothing in their program", NEEDS, () => check([]));

test(
  "they leave nothing where everything is refused, and the reason is looked for",
  [...NEEDS, "package:gcc"],
  async () => {
    await check(["unshare", "--user", "--map-root-user"]);
    await check(await filtered(DOCKER, []));
  },
);

test("what doctor says of listing all namespaces is what ls does", [
  "root",
  "package:util-linux",
  "package:mount",
  "package:gcc",
], async () => {
  const hosts: Record<string, readonly string[]> = {
    "this one": [],
    "a user namespace": ["unshare", "--user", "--map-root-user"],
    "a pid namespace": ["unshare", "--pid", "--fork", "--mount-proc"],
    "one without BTF": ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf; exec "$@"', "sh"],
    "docker's filter": await filtered(DOCKER, []),
    "root without CAP_SYS_ADMIN": ["setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin"],
  };
  const seen: boolean[] = [];
  for (const [name, host] of Object.entries(hosts)) {
    const doctor = JSON.parse((await sh([...host, penne(), "doctor", "--json", "ls"])).stdout);
    const { complete } = JSON.parse((await sh([...host, penne(), "ls", "--json"])).stdout);
    const ability = doctor.abilities.find((one: { name: string }) => one.name === "name all namespaces");
    assertEquals(ability.possible, complete, name);
    if (!complete) assert(ability.findings.length > 0, name);
    seen.push(complete);
  }
  assert(seen.includes(false));
});
