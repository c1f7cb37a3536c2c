// Attaches network namespaces, for any Deno program.

import { PenneError } from "../base/errors.ts";
import { portRange } from "../datapath/netif/tcp_ports.ts";
import { type ServedPorts, servedPorts } from "../datapath/server/served_ports.ts";
import { openRequestedPorts } from "../forward/open.ts";
import { checkPorts } from "../forward/request.ts";
import { planHold } from "./ports.ts";
import { pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { checkTargets } from "../netns/check.ts";
import { WorkerServer } from "../datapath/server/worker_server.ts";
import { type Attached, Attachments, type AttachOptions, checkAttach, type DetachCause } from "./attach.ts";

export type { LocalDelivery } from "../forward/ports.ts";
export type { Cause } from "../netns/name.ts";
export type { AddressBlock, ReachRequest, TellRequest } from "../network/reach.ts";
export type { NameServer } from "../host/resolv_conf.ts";
export type { PortList, PortOptions, PortsRequest } from "../forward/request.ts";
export type { PortRule, ServedPorts } from "../datapath/server/served_ports.ts";
export type { NetworkRequest, PrefixedAddress } from "../network/request.ts";
export type { Attached, AttachOptions, DetachCause };

/** What is asked for, in messages. */
const WORDS = {
  auto: 'ports "auto"',
  outward: "ports.tcpOut or ports.udpOut",
  loopback: 'ports.local "loopback"',
  localOnly: "ports.localOnly",
  stay: "quit: false",
} as const;

/** Attached namespaces. */
export interface Attachment extends Disposable {
  /** The namespaces that are still attached. */
  readonly served: readonly Attached[];
  /** Resolves when the last one was detached, or after {@linkcode Attachment.close}. */
  readonly done: Promise<void>;
  /**
   * The ports of one namespace, which can be changed while it is served. Ports inside can be added if there were ports from
   * the start.
   *
   * @param target The target as it was given; the only one by default.
   * @returns Its ports.
   * @throws {PenneError} If it is not attached, or there are several and none is named.
   */
  ports(target?: string): ServedPorts;
  /** Detaches all of them. */
  close(): void;
}

/**
 * Gives existing network namespaces their network, each until its name or process disappears or it ends.
 *
 * Call it on the main thread. The program runs as long as a namespace is attached.
 *
 * @example
 * ```ts ignore
 * import { attach } from "./mod.ts";
 * import { spawn } from "../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * using attachment = attach([`${child.pid}`], { addresses: [{ address: Uint8Array.of(10, 0, 2, 100), prefix: 24 }] });
 * assertEquals(attachment.served[0]?.netns, child.namespaces.net);
 * child.end();
 * await attachment.done;
 * ```
 *
 * @param targets PIDs, names of ip-netns(8), paths, or `fd:N`; your own descriptor keeps its namespace alive until you
 * close it.
 * @param options How to attach, and which network.
 * @returns The attached namespaces; their network is usable.
 * @throws {PenneError} If it fails for one of them; none is changed then.
 */
export function attach(targets: readonly (string | number)[], options: AttachOptions = {}): Attachment {
  checkTargets(targets, "targets");
  const parsed = checkAttach(targets.map(String), options);
  const { ports: wanted = {}, quit = true } = options;
  const requested = checkPorts(wanted, options.version, portRange);
  const hold = planHold(requested, parsed, quit, WORDS);
  const reactor = new Reactor();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // What goes to the Worker is copied, and a function cannot be.
  const { onDetach: report, onWarning, ports: _, ...request } = options;
  const onDetach = (attached: Attached, cause: DetachCause) => {
    report?.(attached, cause);
    if (attachments.served.length === 0) close();
  };
  const server = new WorkerServer(request, onWarning, openRequestedPorts(requested));
  const attachments = new Attachments(reactor, server, {
    announce: true,
    ...options,
    onDetach,
    hold,
    localOnly: requested.localOnly,
  });
  let stop = () => {};
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    stop();
    attachments[Symbol.dispose]();
    server[Symbol.dispose]();
    // After the event that reported the end has been handled.
    queueMicrotask(() => {
      reactor[Symbol.dispose]();
      resolve();
    });
  };
  try {
    attachments.add(parsed);
    attachments.keep();
  } catch (error) {
    close();
    throw error;
  }
  ({ stop } = pump(reactor, (error) => {
    close();
    reject(error);
  }));
  return {
    get served() {
      return attachments.served;
    },
    done: promise,
    ports(target) {
      const { served } = attachments;
      const found = target === undefined ? served : served.filter((one) => one.target === target);
      if (found.length === 1) return servedPorts((asked) => server.ask(found[0]!.netns, asked));
      const reason = found.length > 0 ? "name one of the namespaces" : "it is not attached";
      throw new PenneError(`find the ports of ${target === undefined ? "a namespace" : `"${target}"`}: ${reason}`);
    },
    close,
    [Symbol.dispose]: close,
  };
}
