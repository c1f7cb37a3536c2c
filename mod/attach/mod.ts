// Giving namespaces their network, for any Deno program.

import { pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { WorkerServer } from "../datapath/server/worker_server.ts";
import { type Attached, Attachments, type AttachOptions, checkAttach, type DetachCause } from "./attach.ts";

export type { Attached, AttachOptions, DetachCause } from "./attach.ts";
export type { Cause } from "../netns/watcher.ts";
export type { AddressBlock, ReachRequest } from "../network/reach.ts";
export type { NetworkRequest, PrefixedAddress } from "../network/plan.ts";

/** Namespaces that have been given their network. */
export interface Attachment extends Disposable {
  /** Those that have it still. */
  readonly served: readonly Attached[];
  /** Resolves when the last one has gone (with `quit: false`: has ended), or after {@linkcode Attachment.close}. */
  readonly done: Promise<void>;
  /** Takes the network away again. */
  close(): void;
}

/**
 * Gives existing network namespaces their network; each is left when its name or process goes, or at its end.
 *
 * Call it on the main thread. The program goes on as long as a namespace is served.
 *
 * @example
 * ```ts
 * import { attach } from "./mod.ts";
 * import { spawn } from "../run/mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * using attachment = attach([`${child.pid}`], { addresses: [{ address: Uint8Array.of(10, 0, 2, 100), prefix: 24 }] });
 * assertEquals(attachment.served[0]?.netns, child.namespaces.net);
 * child.end();
 * await attachment.done;
 * ```
 *
 * @param targets PIDs, names of ip-netns(8), paths, or `fd:N`; a descriptor of yours keeps its namespace alive as long as
 * you hold it.
 * @param options How to attach, and what network.
 * @returns The namespaces, with their network usable.
 * @throws {PenneError} If it fails for one of them; none is changed then.
 */
export function attach(targets: readonly string[], options: AttachOptions = {}): Attachment {
  const parsed = checkAttach(targets, options);
  const reactor = new Reactor();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // What goes to the Worker is copied, and a function cannot be.
  const { onDetach: report, onWarning, ...request } = options;
  const onDetach = (attached: Attached, cause: DetachCause) => {
    report?.(attached, cause);
    if (attachments.served.length === 0) close();
  };
  const server = new WorkerServer(request, onWarning);
  const attachments = new Attachments(reactor, server, { ...options, onDetach });
  let stop = () => {};
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    stop();
    attachments[Symbol.dispose]();
    server[Symbol.dispose]();
    // Not before the event that told of the end has been dealt with.
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
  stop = pump(reactor, (error) => {
    close();
    reject(error);
  });
  return {
    get served() {
      return attachments.served;
    },
    done: promise,
    close,
    [Symbol.dispose]: close,
  };
}
