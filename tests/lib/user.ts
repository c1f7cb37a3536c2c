// The user without privileges as whom tests run penne: penne-test if root runs them, else whoever runs them.

/** An unprivileged user with subordinate ids, made by packaging/prepare. */
export const TEST_USER = "penne-test";

/** Prefixes a command line so that the user without privileges runs it. */
export function asUser(argv: readonly string[]): string[] {
  if (Deno.uid() !== 0) return [...argv];
  return ["setpriv", "--reuid", TEST_USER, "--regid", TEST_USER, "--init-groups", "--inh-caps=-all", "--", ...argv];
}
