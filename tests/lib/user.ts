// The user without privileges as whom tests run penne: penne-test if root runs them, else whoever runs them.

/** An unprivileged user with subordinate ids, made by packaging/prepare. */
export const TEST_USER = "penne-test";

/** Prefixes a command line so that the user without privileges runs it. */
export function asUser(argv: readonly string[]): string[] {
  if (Deno.uid() !== 0) return [...argv];
  return ["setpriv", "--reuid", TEST_USER, "--regid", TEST_USER, "--init-groups", "--inh-caps=-all", "--", ...argv];
}

/** The ids of the user without privileges. */
export function userIds(): { uid: number; gid: number } {
  if (Deno.uid() !== 0) return { uid: Deno.uid()!, gid: Deno.gid()! };
  const line = Deno.readTextFileSync("/etc/passwd").split("\n").find((l) => l.startsWith(`${TEST_USER}:`))!;
  const [, , uid, gid] = line.split(":");
  return { uid: Number(uid), gid: Number(gid) };
}

/** The first range of subordinate ids of the user without privileges. */
export function subordinateIds(kind: "uid" | "gid"): { start: number; count: number } {
  const { uid } = userIds();
  const names = Deno.readTextFileSync("/etc/passwd").split("\n").map((line) => line.split(":"));
  const owners = [`${uid}`, ...names.filter((fields) => fields[2] === `${uid}`).map(([name]) => name)];
  const lines = Deno.readTextFileSync(`/etc/sub${kind}`).split("\n").map((line) => line.split(":"));
  const [, start, count] = lines.find(([owner]) => owners.includes(owner!))!;
  return { start: Number(start), count: Number(count) };
}
