// The directory /job of a guest: penne for its architecture, and the scripts of the checks.

import { V8_FLAGS } from "../../packaging/code_cache.ts";
import { ROOT } from "../lib/helpers.ts";
import type { Check, Who } from "./check.ts";
import { cacheDirectory, must, Unreachable } from "./disk.ts";
import type { Script } from "./guest.ts";
import type { Kernel } from "./kernels.ts";

/** Deno for aarch64, from npm's registry: no server of Debian has one. */
const DENO = {
  package: "@deno/linux-arm64-glibc",
  version: "2.9.6",
  integrity: "sha512-poqhoH9B3nYloigEMPT5t8HY+wBeiuea1An5Q7fqgJzP0SYmWsoS/oUnWO/pEiA4ofzIBy1Elt/in58xKtxEoQ==",
};
/** Seconds for its download. */
const LIMIT = 120;

/** Runs the bundles as the compiled program runs them. */
const WRAPPER = `#!/bin/bash
DENO_NO_UPDATE_CHECK=1 DENO_DIR=/tmp/deno-$EUID exec /job/deno run --quiet --no-config --allow-ffi --allow-read \\
  --v8-flags=${V8_FLAGS} /job/bundles/main.js "$@"
`;

/** The path of a Deno for aarch64, which is fetched once. @throws {Unreachable} */
export async function denoForAarch64(): Promise<string> {
  const path = `${cacheDirectory()}/deno-${DENO.version}-aarch64`;
  if (await Deno.stat(path).catch(() => null)) return path;
  await Deno.mkdir(cacheDirectory(), { recursive: true });
  const work = await Deno.makeTempDir({ dir: cacheDirectory(), prefix: "half-" });
  try {
    const name = `${DENO.package}@${DENO.version}`;
    await must("timeout", [`${LIMIT}`, "npm", "pack", "--silent", name], work).catch((error) => {
      throw new Unreachable(`npm's registry cannot be reached, or is too slow: ${error.message.slice(-500)}`);
    });
    const [archive] = [...Deno.readDirSync(work)];
    const bytes = await Deno.readFile(`${work}/${archive!.name}`);
    const digest = btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest("SHA-512", bytes))));
    if (`sha512-${digest}` !== DENO.integrity) throw new Error(`${name} has an unexpected digest: sha512-${digest}`);
    await must("tar", ["-xzf", archive!.name, "package/deno"], work);
    await Deno.chmod(`${work}/package/deno`, 0o755);
    await Deno.rename(`${work}/package/deno`, path);
    return path;
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

/** Puts penne for a kernel into a directory. @throws {Unreachable} */
export async function putPenne(kernel: Kernel, directory: string): Promise<void> {
  await Deno.mkdir(`${directory}/bin`);
  if (kernel.architecture === "x86_64") {
    await Deno.copyFile(`${ROOT}dist/penne`, `${directory}/bin/penne`);
  } else {
    await Deno.copyFile(await denoForAarch64(), `${directory}/deno`);
    await must(Deno.execPath(), [
      ...["run", "--quiet", "-A", `${ROOT}packaging/compile.ts`, "--bundles", `${directory}/bundles`, "aarch64"],
    ], ROOT);
    await Deno.writeTextFile(`${directory}/bin/penne`, WRAPPER);
  }
  await Deno.chmod(`${directory}/bin/penne`, 0o755);
  await Deno.copyFile(new URL("bootstrap.pl", import.meta.url), `${directory}/bootstrap.pl`);
}

/** What the tests on aarch64 are about: all that knows raw memory, packets and messages, and what is close to the kernel. */
export const TESTED: readonly string[] = [
  ...["ffi", "mod/inet", "mod/netlink", "mod/bpf", "mod/nsexec"],
  ...["tests/ffi", "tests/inet", "tests/netlink", "tests/bpf", "tests/nsexec", "tests/watch", "tests/agents"],
];

/**
 * Puts the last commit and what it imports into a directory, for {@linkcode testScript}.
 *
 * @throws {Error} If a package cannot be fetched.
 */
export async function putSources(directory: string): Promise<void> {
  await must("sh", ["-c", 'mkdir "$1/source" && git archive HEAD | tar -x -C "$1/source"', "sh", directory], ROOT);
  const arguments_ = ["cache", "--quiet", "--no-check", "tests/lib/helpers.ts", "tests/inet/packet_test.ts"];
  await must("env", [`DENO_DIR=${directory}/cache`, Deno.execPath(), ...arguments_], `${directory}/source`);
}

/** Runs tests, from source, in a guest that has a Deno of its own. */
export function testScript(paths: readonly string[]): Script {
  const text =
    `cp -r /job/source /job/cache /tmp; mkdir /tmp/source/dist; cp /job/bin/penne /tmp/source/dist; cd /tmp/source
chmod -R a+rX . ../cache; ln -s /job/deno /usr/bin/deno
export DENO_DIR=/tmp/cache DENO_NO_UPDATE_CHECK=1 NO_COLOR=1 PENNE_PATIENCE=20
deno test -A --no-check --doc ${paths.join(" ")}`;
  return { name: "tests", who: "root", text };
}

/** A check by a user, and the name of its script. */
export interface Planned {
  readonly check: Check;
  readonly who: Who;
  readonly script: Script;
}

/** The scripts of checks, for everybody who runs each of them. */
export function plan(checks: readonly Check[]): Planned[] {
  return checks.flatMap((check, i) =>
    (["root", "user"] as const).filter((who) => (check.who ?? who) === who).map((who) => {
      const text = `set -eu\n${check.script}\n`;
      return { check, who, script: { name: `${i}`.padStart(3, "0"), who, text } };
    })
  );
}
