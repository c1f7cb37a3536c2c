// Security modules: which one confines penne, or would confine it in a user namespace, and what to change there.

import { Agent } from "../../ffi/agent/agent.ts";
import { CLONE } from "../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import { readLink } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import type { Finding } from "./finding.ts";
import { type Confinement, confinement, fixHere, has, setting } from "./host.ts";

/** Ubuntu's setting, which upstream kernels do not have. */
const RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns";

/** A profile that lets penne make user namespaces, in one command. */
function ownProfile(): string {
  const exe = orNull(() => readLink(self, "/proc/self/exe")) ?? "/usr/local/bin/penne";
  return `as root: echo 'abi <abi/4.0>, profile penne "${exe}" flags=(unconfined) { userns, }' > /etc/apparmor.d/penne; ` +
    `apparmor_parser -r /etc/apparmor.d/penne`;
}

/** The finding for Ubuntu's restriction, which is not a profile that somebody has written for penne. */
function restricted(how: string): Finding {
  return {
    cause: "apparmor",
    words: `AppArmor restricts user namespaces of programs without a profile (${RESTRICTION} is 1): ${how}`,
    fix: `${ownProfile()}; or sysctl -w ${RESTRICTION}=0`,
  };
}

/**
 * Words for what a security module denies.
 *
 * @param confined What confines the process.
 * @param what What is denied, to be read after "denies".
 * @param rule The rule of AppArmor that would allow it.
 * @returns The finding.
 */
export function moduleFinding({ module, label }: Confinement, what: string, rule: string): Finding {
  if (module === "selinux") {
    return {
      cause: "selinux",
      words: `SELinux is enforcing and denies ${what} to ${label}`,
      fix: fixHere({
        docker: "docker run --security-opt label=disable",
        podman: "podman run --security-opt label=disable",
        none: "as root: ausearch -m avc,user_avc -ts recent | audit2allow -M penne; semodule -i penne.pp",
      }),
    };
  }
  return {
    cause: "apparmor",
    words: `the AppArmor profile "${label}" denies ${what}`,
    fix: fixHere({
      docker: "docker run --security-opt apparmor=unconfined",
      podman: "podman run --security-opt apparmor=unconfined",
      kubernetes: "in the securityContext: appArmorProfile: {type: Unconfined}",
      none: `as root: add "${rule}" to that profile in /etc/apparmor.d and load it (apparmor_parser -r FILE)`,
    }),
  };
}

/** What confines an agent in a new user namespace; null if none can be made. */
function confinementInside(): Confinement | null {
  try {
    using agent = Agent.spawn(CLONE.NEWUSER);
    return confinement(pidOf(agent.pidfd));
  } catch (error) {
    if (error instanceof SysError) return null;
    throw error;
  }
}

/**
 * Explains why a security module refuses a user namespace: only such a module answers EACCES.
 *
 * @returns The finding; none if no module can be named.
 */
export function whyNoUserNamespace(): Finding[] {
  const own = confinement();
  if (own?.enforced) return [moduleFinding(own, "user namespaces", "userns,")];
  return setting(RESTRICTION) === "1" ? [restricted("it refuses them")] : [];
}

/**
 * Explains why something is denied that neither ids nor modes forbid, with EACCES.
 *
 * @param what What is denied, to be read after "denies".
 * @param rule The rule of AppArmor that would allow it.
 * @param inside Whether it is denied to a process in a new user namespace, rather than to penne.
 * @returns The finding; none if no module confines the process.
 */
export function whyDenied(what: string, rule: string, inside = false): Finding[] {
  const own = confinement();
  if (own?.enforced) return [moduleFinding(own, what, rule)];
  const there = inside ? confinementInside() : null;
  if (!there?.enforced) return [];
  if (setting(RESTRICTION) === "1") {
    return [restricted(`it puts them under the profile "${there.label}", which denies ${what}`)];
  }
  return [moduleFinding(there, what, rule)];
}

/** A length that sethostname(2) refuses with EINVAL, after it has looked at the rights of the caller. */
const NO_LENGTH = -1;

/**
 * Explains why something is denied with EPERM to a process that has the capability for it: a module denies capabilities
 * that a process has.
 *
 * @param inside Whether it is denied to a process in a new user namespace, which has all capabilities there; otherwise to
 * penne itself.
 * @returns The finding; none if no module denies CAP_SYS_ADMIN.
 */
export function whyNotCapable(inside: boolean): Finding[] {
  if (!inside && !has("SYS_ADMIN")) return [];
  try {
    using agent = Agent.spawn(inside ? CLONE.NEWUSER | CLONE.NEWUTS : 0);
    if (agent.raw("sethostname", null, NO_LENGTH) !== -E.EPERM) return [];
  } catch {
    return [];
  }
  return whyDenied("CAP_SYS_ADMIN", "capability,", inside);
}
