// Confines the program to a role, unless it was asked not to, and logs how.

import { confine, type Role } from "../../confine/confine.ts";
import { log, logPlace } from "../report/log.ts";
import { mayConfine } from "./confined.ts";

/**
 * Confines the program, as the last step before it waits.
 *
 * @param options The parsed options.
 * @param role What it does from now on; the log is added.
 */
export function confineRole(options: { readonly "no-confine": boolean }, role: Omit<Role, "log">): void {
  if (!mayConfine(options)) return;
  const place = logPlace();
  const { calls, reason } = confine({ ...role, log: place.fd, rules: [...role.rules, ...place.rules] });
  if (calls) log().debug(`confined as ${role.name}: ${calls.length} system calls`, calls.join(" "));
  else if (Deno.build.standalone) log().warn(`not confined: ${reason}`);
  else log().info(`not confined: ${reason}`);
}
