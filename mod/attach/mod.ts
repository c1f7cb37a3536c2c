// Attaches network namespaces, for any Deno program.

import { pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { checkTargets } from "../netns/check.ts";
import { WorkerServer } from "../datapath/server/worker_server.ts";
import { type Attached, Attachments, type AttachOptions, checkAttach, type DetachCause } from "./attach.ts";

export type { Cause } from "../netns/name.ts";
export type { AddressBlock, ReachRequest, TellRequest } from "../network/reach.ts";
export type { NameServer } from "../host/resolv_conf.ts";
export type { NetworkRequest, PrefixedAddress } from "../network/request.ts";
export type { Attached, AttachOptions, DetachCause };

/** Attached namespaces. */
export interface Attachment extends Disposable {
  /** The namespaces that are still attached. */
  readonly served: readonly Attached[];
  /** Resolves when the last one was detached, or after {@linkcode Attachment.close}. */
  readonly done: Promise<void>;
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
  const reactor = new Reactor();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // What goes to the Worker is copied, and a function cannot be.
  const { onDetach: report, onWarning, ...request } = options;
  const onDetach = (attached: Attached, cause: DetachCause) => {
    report?.(attached, cause);
    if (attachments.served.length === 0) close();
  };
  const server = new WorkerServer(request, onWarning);
  const attachments = new Attachments(reactor, server, { announce: true, ...options, onDetach });
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
    close,
    [Symbol.dispose]: close,
  };
}
