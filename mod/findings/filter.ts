// Finds out whether a system call filter, seccomp(2), refuses a call.
//
// Theory of operation. A filter decides before the kernel looks at the arguments. So the call is made once more with
// arguments that the kernel itself refuses with another error, or that change nothing: an answer that the kernel would not
// give is the filter's. That is done in an agent, since a filter may also kill.

import { CLONE, PR } from "../../ffi/core/consts.ts";
import { E, errnoName } from "../../ffi/core/errno.ts";
import type { SyscallName } from "../../ffi/core/syscalls.ts";
import type { Arg } from "../../ffi/core/task.ts";
import { AF } from "../../ffi/net/constants.ts";
import { withAgent } from "../agents/enclosure.ts";
import { NAMESPACE_TYPES, namespaceFlag, type NamespaceType } from "../namespaces/types.ts";
import type { FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { fixHere, status } from "./host.ts";

/** A call that does nothing: its arguments, and the results that the kernel itself may give. */
interface Harmless {
  readonly args: readonly Arg[];
  readonly results: readonly number[];
}

/** A pointer to nowhere, and a descriptor that is none. */
const [NOWHERE, NO_FD] = [1, -1];
/** Not a flag of unshare(2), umount2(2) or memfd_create(2). */
const [NO_UNSHARE, NO_UMOUNT, NO_MEMFD] = [1, 0x40000000, 0x08000000];
/** Flags of clone(2) that the kernel refuses beside those for namespaces. */
const [CLONE_FS, CLONE_THREAD] = [0x200, 0x10000];
/** Not a type of socket, option of prctl(2), resource or capability header. */
const NO_TYPE = 11;
const NONE = 9999;

/** What each call has to be made with; the arguments of the failed call matter where a filter may look at them. */
const HARMLESS: { readonly [name in SyscallName]?: (args: FailedCall["args"]) => Harmless } = {
  clone: ([flags]) => ({
    args: [Number(flags) | (Number(flags) & CLONE.NEWUSER ? CLONE_FS : CLONE_THREAD), 0, 0, 0, 0],
    results: [-E.EINVAL],
  }),
  unshare: ([flags]) => ({ args: [Number(flags) | NO_UNSHARE], results: [-E.EINVAL] }),
  setns: ([, flags]) => ({ args: [NO_FD, Number(flags)], results: [-E.EBADF, -E.EINVAL] }),
  mount: ([, , , flags]) => ({ args: [NOWHERE, NOWHERE, NOWHERE, Number(flags ?? 0), 0], results: [-E.EFAULT] }),
  umount2: () => ({ args: [NOWHERE, NO_UMOUNT], results: [-E.EINVAL] }),
  socket: ([family]) => ({ args: [Number(family), NO_TYPE, 0], results: [-E.EINVAL] }),
  socketpair: ([family]) => ({ args: [Number(family), NO_TYPE, 0, NOWHERE], results: [-E.EINVAL, -E.EFAULT] }),
  bind: () => ({ args: [NO_FD, NOWHERE, 0], results: [-E.EBADF] }),
  execveat: () => ({ args: [NO_FD, NOWHERE, NOWHERE, NOWHERE, 0], results: [-E.EFAULT] }),
  memfd_create: () => ({ args: [NOWHERE, NO_MEMFD], results: [-E.EINVAL] }),
  openat: () => ({ args: [NO_FD, NOWHERE, 0], results: [-E.EFAULT] }),
  openat2: () => ({ args: [NO_FD, NOWHERE, NOWHERE, 0], results: [-E.EINVAL] }),
  ioctl: ([, request]) => ({ args: [NO_FD, Number(request ?? 0), 0], results: [-E.EBADF] }),
  bpf: ([command]) => ({ args: [Number(command ?? 0), NOWHERE, 1 << 20], results: [-E.E2BIG, -E.EFAULT] }),
  prctl: ([option]) => ({
    args: option === PR.CAP_AMBIENT ? [option, PR.CAP_AMBIENT_RAISE, NONE, 0, 0] : [NONE, 0, 0, 0, 0],
    results: [-E.EINVAL],
  }),
  prlimit64: () => ({ args: [0, NONE, 0, 0], results: [-E.EINVAL] }),
  capget: () => ({ args: [NOWHERE, NOWHERE], results: [-E.EFAULT] }),
  capset: () => ({ args: [NOWHERE, NOWHERE], results: [-E.EFAULT] }),
  chroot: () => ({ args: [NOWHERE], results: [-E.EFAULT] }),
  setresuid: () => ({ args: [-1, -1, -1], results: [0] }),
  setresgid: () => ({ args: [-1, -1, -1], results: [0] }),
  statx: () => ({ args: [NO_FD, NOWHERE, 0, 0, NOWHERE], results: [-E.EFAULT] }),
  signalfd4: () => ({ args: [NO_FD, NOWHERE, 8, 0], results: [-E.EFAULT] }),
  renameat2: () => ({ args: [NO_FD, NOWHERE, NO_FD, NOWHERE, -1], results: [-E.EINVAL] }),
  ppoll: () => ({ args: [NOWHERE, 1, NOWHERE, 0, 0], results: [-E.EFAULT] }),
  pidfd_open: () => ({ args: [0, 0], results: [-E.EINVAL] }),
  pidfd_send_signal: () => ({ args: [NO_FD, 0, 0, 0], results: [-E.EBADF] }),
};

/** Calls that the kernel refuses first to whoever lacks a capability: an agent has it in a user namespace of its own. */
const CAPABLE: { readonly [name in SyscallName]?: { readonly flags: number } & Harmless } = {
  sethostname: { flags: CLONE.NEWUSER | CLONE.NEWUTS, args: [NOWHERE, -1], results: [-E.EINVAL] },
};

/** How a filter answers a call: the name of an error, `killed`, or null if it lets it pass. */
type Answer = string | null;

/** Makes a harmless call in an agent, and returns the answer if it is not the kernel's own. */
function answerTo(name: SyscallName, { args, results }: Harmless, flags = 0): Answer {
  return withAgent(flags, (agent) => {
    let result;
    try {
      result = agent.raw(name, ...args);
    } catch {
      return "killed"; // an agent ends for no other reason
    }
    return results.includes(result) || result >= 0 ? null : errnoName(-result);
  });
}

/**
 * How a filter answers a call.
 *
 * @param call The call.
 * @returns The name of the filter's error, `killed`, or null if it lets the call pass or cannot be asked.
 */
export function filterAnswer({ syscall, args }: Pick<FailedCall, "syscall" | "args">): Answer {
  if (status("Seccomp") !== "2") return null;
  const name = syscall as SyscallName;
  try {
    const capable = CAPABLE[name];
    // Without its capabilities, an agent hears from the kernel what a filter may say.
    if (capable) return lostCapabilities().length ? null : answerTo(name, capable, capable.flags);
    const harmless = HARMLESS[name]?.(args);
    return harmless ? answerTo(name, harmless) : null;
  } catch {
    return null; // no agent can be started
  }
}

/**
 * The kinds of namespaces that a filter refuses to make or join.
 *
 * @param syscall clone, unshare or setns.
 * @param types The kinds to look at.
 * @returns Those that are refused, and the answer.
 */
export function filteredTypes(
  syscall: "clone" | "unshare" | "setns",
  types: readonly NamespaceType[],
): { readonly types: readonly NamespaceType[]; readonly answer: Answer } {
  let answer: Answer = null;
  const refused = types.filter((type) => {
    const flag = namespaceFlag(type);
    const found = filterAnswer({ syscall, args: syscall === "setns" ? [null, flag] : [flag] });
    answer = found ?? answer;
    return found !== null;
  });
  return { types: refused, answer };
}

const FAMILIES = Object.entries(AF).map(([name, number]) => [`AF_${name}`, number] as const);

/** What the filter looks at, beside the call. */
function detailOf({ syscall, args }: Pick<FailedCall, "syscall" | "args">, types: readonly NamespaceType[]): string {
  if (types.length) return ` for ${types.join(", ")} namespaces`;
  if (syscall !== "socket" && syscall !== "socketpair") return "";
  return ` for ${FAMILIES.find(([, number]) => number === args[0])?.[0] ?? `address family ${args[0]}`}`;
}

/** Groups of calls that systemd knows, of which penne needs more than the one that was refused first. */
const GROUPS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(["mount", "umount2", "chroot"].map((name) => [name, "@mount"])),
  ...Object.fromEntries(["setresuid", "setresgid"].map((name) => [name, "@setuid"])),
};

/** The setting of systemd that makes such a filter, and the value that lets the call pass; see systemd.exec(5). */
function unitSetting({ syscall, args }: Pick<FailedCall, "syscall" | "args">, types: readonly NamespaceType[]): string {
  if (syscall === "socket") {
    // A filter of families answers as the kernel does for one that it does not know.
    const all = ![null, "EAFNOSUPPORT"].includes(filterAnswer({ syscall, args: [NONE] }));
    const family = FAMILIES.find(([, number]) => number === args[0])?.[0];
    if (family && !all) return `RestrictAddressFamilies=${family}`;
  }
  if (syscall === "sethostname") return "ProtectHostname=no";
  // A filter of namespaces looks at the flags, and lets a call without any pass.
  if (types.length && filterAnswer({ syscall: "unshare", args: [0] }) === null) return "RestrictNamespaces=no";
  return `SystemCallFilter=${types.length ? "clone unshare setns" : GROUPS[syscall] ?? syscall}`;
}

/**
 * Words for a call that a filter refuses.
 *
 * @param call The call.
 * @param answer The filter's answer.
 * @param types The kinds of namespaces that it refuses, if it is about them.
 * @returns The finding.
 */
export function filterFinding(
  call: Pick<FailedCall, "syscall" | "args">,
  answer: string,
  types: readonly NamespaceType[] = [],
): Finding {
  const does = answer === "killed" ? "kills whoever calls" : answer === "ENOSYS" ? "hides" : "refuses";
  return {
    cause: "seccomp",
    words: `a system call filter (seccomp) ${does} ${call.syscall}(2)${detailOf(call, types)}`,
    fix: fixHere({
      docker: "docker run --security-opt seccomp=unconfined, or a profile that allows it",
      podman: "podman run --security-opt seccomp=unconfined, or a profile that allows it",
      kubernetes: "in the securityContext: seccompProfile: {type: Unconfined}, or a profile that allows it",
      unit: unitSetting(call, types),
      none: "start penne from a process without that filter: it is inherited, and cannot be removed",
    }),
  };
}

/** Calls by which an agent keeps the capabilities that it has in a new user namespace when it is executed. */
const KEEPING: readonly Pick<FailedCall, "syscall" | "args">[] = [
  { syscall: "capget", args: [] },
  { syscall: "capset", args: [] },
  { syscall: "prctl", args: [PR.CAP_AMBIENT] },
];

/**
 * Finds the call without which an agent loses its capabilities, so that the kernel refuses what it does later.
 *
 * @returns The finding; none if no filter refuses such a call.
 */
export function lostCapabilities(): Finding[] {
  for (const call of KEEPING) {
    const answer = filterAnswer(call);
    if (answer !== null) return [filterFinding(call, answer)];
  }
  return [];
}

/** Calls that penne cannot do without, in the order in which `run` makes them. */
const NEEDED: readonly Pick<FailedCall, "syscall" | "args">[] = [
  { syscall: "setresuid", args: [] },
  { syscall: "setresgid", args: [] },
  { syscall: "mount", args: [] },
  { syscall: "umount2", args: [] },
  { syscall: "sethostname", args: [] },
  { syscall: "socket", args: [AF.NETLINK] },
  { syscall: "ioctl", args: [] },
  ...KEEPING,
  ...NAMESPACE_TYPES.map((type) => ({ syscall: "setns", args: [null, namespaceFlag(type)] })),
  { syscall: "chroot", args: [] },
  { syscall: "unshare", args: [CLONE.NEWNET] },
  { syscall: "unshare", args: [CLONE.NEWTIME] },
];

/**
 * Finds the calls for which a filter kills a process.
 *
 * @returns A finding for each.
 */
export function killingFilters(): Finding[] {
  const found = NEEDED.filter((call) => filterAnswer(call) === "killed");
  const names = [...new Set(found.map(({ syscall }) => syscall))];
  return names.map((syscall) => filterFinding(found.find((call) => call.syscall === syscall)!, "killed"));
}
