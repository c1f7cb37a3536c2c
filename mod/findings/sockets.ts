// Explains why a socket cannot be made or used: filters, missing protocols, and the process connector.

import { AF, NETLINK } from "../../ffi/net/constants.ts";
import { filterAnswer, filterFinding } from "./filter.ts";
import type { FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { builtWithout, fixHere, has, isInitial, kernel } from "./host.ts";
import { whyDenied } from "./modules.ts";

/** What the kernel needs for each family. */
const OPTION: Readonly<Record<number, string>> = {
  [AF.UNIX]: "CONFIG_UNIX",
  [AF.INET]: "CONFIG_INET",
  [AF.INET6]: "CONFIG_IPV6",
  [AF.NETLINK]: "CONFIG_NET",
};

/**
 * Explains why socket(2) or socketpair(2) has failed.
 *
 * @param failed The call.
 * @returns The findings.
 */
export function explainSocket(failed: FailedCall): Finding[] {
  const { code, args } = failed;
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  const [family, , protocol] = args.map(Number);
  // The kernel itself answers EPERM, and that for raw sockets alone.
  if (code === "EACCES") {
    const name = Object.entries(AF).find(([, number]) => number === family)?.[0];
    return name ? whyDenied(`AF_${name} sockets`, name === "UNIX" ? "unix," : `network ${name.toLowerCase()},`) : [];
  }
  if (code === "EAFNOSUPPORT" && OPTION[family!]) {
    return [builtWithout(OPTION[family!]!, "such sockets")];
  }
  if (code === "EPROTONOSUPPORT" && family === AF.NETLINK && protocol === NETLINK.CONNECTOR) {
    return [builtWithout("CONFIG_CONNECTOR", "it")];
  }
  return [];
}

const THERE = "run penne there";

/** The process connector's answers depend on the version, linux/cn_proc.h. */
const UNPRIVILEGED = [6, 6] as const;

/** A listener without privilege, where only root may listen. */
function needsRoot(): Finding[] {
  if (has("NET_ADMIN") || !kernel().isBefore(...UNPRIVILEGED)) return [];
  return [{
    cause: "capability",
    words: `before Linux 6.6 the process connector takes CAP_NET_ADMIN, and this is Linux ${kernel().text}`,
    fix: "run penne as root",
  }];
}

/**
 * Explains why the process connector cannot be used.
 *
 * @param failed The call, or `silence` if the kernel has taken the request and not answered.
 * @returns The findings.
 */
export function explainConnector(failed: FailedCall | "silence"): Finding[] {
  if (failed === "silence") {
    // Elsewhere the kernel ignores the request. Later kernels look at the pid namespace only.
    const elsewhere = (["pid", "user"] as const).find((type) => !isInitial(type));
    if (elsewhere === undefined) return needsRoot();
    const words = `the process connector answers only in the initial ${elsewhere} namespace`;
    return [{ cause: elsewhere === "user" ? "user namespace" : "namespace", words, fix: THERE }];
  }
  if (failed.syscall === "socket") return explainSocket(failed);
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  if (failed.code === "EPERM") return needsRoot();
  if (failed.code === "ECONNREFUSED") {
    // The kernel has one connector, in the initial network namespace.
    const words = "the process connector answers only in the initial network namespace";
    return [{ cause: "namespace", words, fix: fixHere({ docker: THERE, unit: "PrivateNetwork=no", none: THERE }) }];
  }
  return [];
}
