// The system calls that serving namespaces needs once all is set up; and the code that is loaded before that.

import type { CallRule } from "../../../ffi/core/call_rule.ts";
import { SIGNAL } from "../../../ffi/core/consts.ts";
import { CHANNEL_RULES } from "../../../ffi/agent/channel.ts";
import { AF, NETLINK } from "../../../ffi/net/constants.ts";
import { DATAGRAM_RULES } from "../../../ffi/net/datagrams.ts";
import { PORT_RULES } from "../../../ffi/net/listener.ts";
import { QUEUE_RULES } from "../../../ffi/net/queue_error.ts";
import { socketRules } from "../../../ffi/net/socket.ts";
import { SPLICE_RULES } from "../../../ffi/net/splice.ts";
import { tapRules } from "../../../ffi/net/tap.ts";
import { CONTROL_RULES } from "../../../ffi/net/unix.ts";
import { EPOLL_RULES } from "../../../ffi/sys/epoll.ts";
import { readingRules } from "../../../ffi/sys/file.ts";
import { LIMIT_RULES } from "../../../ffi/sys/process.ts";
import { keepNetlinkSockets, NETLINK_RULES } from "../../netlink/socket.ts";
import { hasSpareProcessor } from "../../reactor/reactor.ts";

const TEST = "tests/confine/serve_test.ts";

/** What serving depends on. */
export interface Serving {
  /** Whether raw sockets are opened where the host has no ping sockets. */
  readonly raw: boolean;
}

/**
 * What serving namespaces needs, with ports that may be added at any time, and following the host.
 *
 * @param serving What it depends on.
 * @returns The rules.
 */
export function servingRules({ raw }: Serving): CallRule[] {
  return [
    ...EPOLL_RULES,
    ...socketRules(raw),
    ...DATAGRAM_RULES,
    ...QUEUE_RULES,
    ...tapRules(TEST),
    ...PORT_RULES,
    ...SPLICE_RULES,
    ...CONTROL_RULES,
    ...CHANNEL_RULES,
    ...NETLINK_RULES,
    ...LIMIT_RULES,
    ...readingRules("the host's resolver and its settings", TEST),
    { call: "statx", why: "the host's resolver: whether it has changed", test: TEST },
    { call: "lseek", why: "the listeners of a namespace, on a kernel without sock_diag(7)", test: TEST },
    { call: "geteuid", why: "the control socket: whose client it serves", test: "tests/cli/ports/ports_test.ts" },
    { call: "unlinkat", why: "the control socket: its file goes with it", test: "tests/cli/ports/ports_test.ts" },
    { call: "ftruncate", why: "a capture: a frame that the disk has no room for", test: "tests/cli/capture_test.ts" },
    { call: "ppoll", why: "an agent: whether it has ended", test: TEST },
    {
      call: "pidfd_send_signal",
      when: [{ argument: 1, values: [0, SIGNAL.CONT, SIGNAL.KILL] }],
      why: "an agent: it goes on, or ends",
      test: TEST,
    },
    { call: "wait4", why: "an agent: how it has ended", test: TEST },
    {
      call: "socketpair",
      when: [{ argument: 0, values: [AF.UNIX] }],
      why: "the host is followed: an agent that enters a namespace",
      test: "tests/cli/follow/host_test.ts",
    },
  ];
}

/**
 * Loads and opens what serving would load and open late.
 *
 * Here is all code that the data path, and what tells of it, import when they first need it: a confined process may not find
 * it any more.
 */
export async function prepareServing(): Promise<void> {
  keepNetlinkSockets(NETLINK.ROUTE, NETLINK.SOCK_DIAG);
  hasSpareProcessor();
  await Promise.all([
    import("../../advice/answers.ts"),
    import("../../flows/stream.ts"),
    import("../../follow/follower.ts"),
    import("../../inet/dns.ts"),
    import("../../inet/reassembly.ts"),
    import("../multicast/member.ts"),
  ]);
}
