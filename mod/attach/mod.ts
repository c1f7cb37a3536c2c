// Attaches network namespaces, for any Deno program.

import { anything, callback, type Check, flag, object } from "../base/check.ts";
import { PenneError, usage } from "../base/errors.ts";
import { portRange } from "../datapath/netif/tcp_ports.ts";
import { type ServedPorts, servedPorts } from "../datapath/server/served_ports.ts";
import { openRequestedPorts } from "../forward/open.ts";
import { checkPorts } from "../forward/request.ts";
import { planHold } from "./ports.ts";
import { type Pump, pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { NETWORK, networkRequest, REACH, reachRequest } from "../network/options.ts";
import { checkTargets } from "../netns/check.ts";
import { checkPermissions, WorkerServer } from "../datapath/server/worker_server.ts";
import { type Attached, Attachments, type AttachOptions, checkAttach, type DetachCause } from "./attach.ts";

export type { LocalDelivery } from "../forward/ports.ts";
export type { Cause } from "../netns/name.ts";
export type {
  Address,
  AddressBlock,
  AllowedAddress,
  AllowedHost,
  MacAddress,
  NameServer,
  NetworkOptions,
  PrefixedAddress,
  ReachOptions,
  TellOptions,
} from "../network/options.ts";
export type { PortList, PortOptions, PortsRequest } from "../forward/request.ts";
export type { PortRule, ServedPorts } from "../datapath/server/served_ports.ts";
export type { Attached, AttachOptions, DetachCause };

/** What is asked for, in messages. */
const WORDS = {
  auto: 'ports "auto"',
  outward: "ports.tcpOut or ports.udpOut",
  loopback: 'ports.local "loopback"',
  localOnly: "ports.localOnly",
  stay: "quit: false",
} as const;

const checkOptions = object(
  {
    ...NETWORK,
    ...REACH,
    quit: flag,
    announce: flag,
    ports: anything, // checkPorts() says what is wrong with them
    onWarning: callback,
    onDetach: callback,
  } satisfies Record<keyof AttachOptions, Check>,
);

/** Attached namespaces. */
export interface Attachment extends Disposable {
  /** The namespaces that are still attached. */
  readonly served: readonly Attached[];
  /** Resolves when the last one was detached, or after {@linkcode Attachment.close}. */
  readonly done: Promise<void>;
  /**
   * The ports of one namespace, which can be changed while it is served. Ports inside can be added if `ports` was given to
   * {@linkcode attach}, as `{}` at least; not with `quit: false` or `fd:N`.
   *
   * @param target The target as it was given; the only one by default.
   * @returns Its ports.
   * @throws {PenneError} If it is not attached, or there are several and none is named.
   */
  ports(target?: string | number): ServedPorts;
  /** Keeps the program from exiting while a namespace is attached, which is so by default. */
  ref(): void;
  /** Lets the program exit; the namespaces are detached then. */
  unref(): void;
  /** Detaches all of them. Their interfaces are gone and their ports of the host are free when this returns. */
  close(): void;
}

/**
 * Gives existing network namespaces their network, each until its name or process disappears or it ends.
 *
 * Call it on the main thread. The program runs as long as a namespace is attached, unless {@linkcode Attachment.unref} is
 * called.
 *
 * @example
 * ```ts ignore
 * import { attach } from "./mod.ts";
 * import { spawn } from "../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * using attachment = attach([`${child.pid}`], { addresses: ["10.0.2.100/24"] });
 * assertEquals(attachment.served[0]?.netns, child.namespaces.net);
 * child.end();
 * await attachment.done;
 * ```
 *
 * @param targets PIDs, names of ip-netns(8), paths, or `fd:N`; your own descriptor keeps its namespace alive until you
 * close it.
 * @param options How to attach, and which network.
 * @returns The attached namespaces; their network is usable.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If it fails for one of them; none is changed then.
 */
export function attach(targets: readonly (string | number)[], options?: AttachOptions): Attachment {
  checkTargets(targets, "targets");
  if (options !== undefined) checkOptions(options, "options");
  const { ports: wanted = {}, quit = true, announce = true, onDetach: report, onWarning, version } = options ?? {};
  const [network, reach] = [networkRequest(options ?? {}), reachRequest(options ?? {})];
  const parsed = checkAttach(targets.map(String), { ...network, ...reach });
  const requested = checkPorts(wanted, version, portRange);
  const { localOnly } = requested;
  if (localOnly && reach.allow) throw usage("use allow with ports.localOnly: there is no interface");
  const hold = planHold(requested, parsed, quit, WORDS, options?.ports !== undefined);
  checkPermissions();
  using starting = new DisposableStack();
  const reactor = starting.use(new Reactor());
  const server = new WorkerServer(reach, onWarning, openRequestedPorts(requested), true);
  starting.move(); // from now on close() disposes of both
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onDetach = (attached: Attached, cause: DetachCause) => {
    report?.(attached, cause);
    if (attachments.served.length === 0) close();
  };
  const warn = onWarning && { onWarning };
  const how = { ...network, ...reach, quit, announce, onDetach, hold, localOnly, ...warn };
  const attachments = new Attachments(reactor, server, how);
  let driver: Pump | null = null;
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    driver?.stop();
    // The server first, which lets go of all namespaces at once; each tap then has one descriptor left, and closes with it.
    server[Symbol.dispose]();
    attachments[Symbol.dispose]();
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
  driver = pump(reactor, (error) => {
    close();
    reject(error);
  });
  const keep = (keeps: boolean) => {
    driver.keep(keeps);
    server.keepProgram(keeps);
  };
  return {
    get served() {
      return attachments.served;
    },
    done: promise,
    ports(target) {
      const name = target === undefined ? undefined : `${target}`;
      const { served } = attachments;
      const found = name === undefined ? served : served.filter((one) => one.target === name);
      if (found.length === 1) return servedPorts((asked) => server.ask(found[0]!.netns, asked));
      const reason = found.length > 0 ? "name one of the namespaces" : "it is not attached";
      throw new PenneError(`find the ports of ${name === undefined ? "a namespace" : `"${name}"`}: ${reason}`);
    },
    ref: () => keep(true),
    unref: () => keep(false),
    close,
    [Symbol.dispose]: close,
  };
}
