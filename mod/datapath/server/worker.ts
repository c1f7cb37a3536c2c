// The Worker that serves taps for a program with an event loop of its own.

import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { closeImage } from "../../../ffi/core/shim.ts";
import { read } from "../../../ffi/sys/file.ts";
import { Reactor } from "../../reactor/reactor.ts";
import { Progress } from "./progress.ts";
import { decodeCommand, type Report, type Start } from "./protocol.ts";
import { answer, encode } from "../../control/message.ts";
import type { NamespaceRules } from "../../forward/rule_table.ts";
import type { NetworkRequest } from "../../network/request.ts";
import { PIPES } from "../splice/pipes.ts";
import { admitting } from "./admitting.ts";
import { HostFollower } from "./follow_host.ts";
import { ReactorServer } from "./reactor_server.ts";
import { receiveForwarding, receiveHeld } from "./sent_ports.ts";

interface Scope {
  onmessage: ((event: MessageEvent<Start>) => void) | null;
  postMessage(report: Report): void;
  close(): void;
}

const scope = globalThis as unknown as Scope;

scope.onmessage = async ({ data }) => {
  const progress = new Progress(data.progress);
  const taps = new Set<Fd>();
  try {
    // Otherwise the program has given up before this was loaded, and has closed what it had sent.
    if (progress.take()) await serve(data, progress, taps);
  } finally {
    progress.end();
    for (const tap of taps) tap.close(); // while nobody waits
    // The descriptors of the process outlive the Worker, which runs no line after close().
    closeImage();
  }
  scope.close();
};

/** Serves until the pipe of the commands is closed; everything is closed then, but `taps` that close last. */
async function serve(data: Start, progress: Progress, taps: Set<Fd>): Promise<void> {
  using commands = new Fd(data.commands);
  using reactor = new Reactor();
  using _pipes = PIPES; // closed when nothing is served any more
  using server = new ReactorServer(reactor, data.reach, (warning) => scope.postMessage({ warning }));
  server.admitting = await admitting(data.reach, (warning) => scope.postMessage({ warning }));
  using follower = new HostFollower({
    reactor,
    server,
    keeper: null, // the program has its rights
    onChange: () => {},
    onInfo: () => {},
    onWarning: (warning) => scope.postMessage({ warning }),
  });
  /** Requests by their text, and by how many namespaces: what several have asked for is planned once. */
  const requests = new Map<string, { readonly request: NetworkRequest; users: number }>();
  const served = new Map<number, () => void>();
  const stopAll = () => {
    for (const stop of served.values()) stop();
    served.clear();
  };
  let over = false;
  const tables = new Map<number, NamespaceRules>();
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(65536);
  let text = "";
  const perform = (line: string) => {
    const command = decodeCommand(line);
    if ("serve" in command) {
      const { serve: id, link: sent, plan, netns, ports, held, followed } = command;
      const tap = sent && new Fd(sent.tap);
      const link = sent && tap && { ...sent, tap };
      if (tap && !data.tapsStay) taps.add(tap);
      const stop = server.serve(link, plan, () => scope.postMessage({ dead: id }), {
        netns,
        ...ports && { ports: receiveForwarding(ports) },
        ...held && { held: receiveHeld(held) },
        onRules: (rules) => tables.set(id, rules),
      });
      scope.postMessage({ serving: id });
      const asked = link && followed ? JSON.stringify(followed.request) : "";
      if (link && followed) {
        const shared = requests.get(asked) ?? { request: followed.request, users: 0 };
        shared.users++;
        requests.set(asked, shared);
        follower.add({ link, plan: { ...followed, request: shared.request } });
      }
      served.set(id, () => {
        const shared = requests.get(asked);
        if (shared && --shared.users === 0) requests.delete(asked);
        tables.delete(id);
        stop();
        if (tap && data.tapsStay) tap.close();
      });
    } else if ("ask" in command) {
      const rules = tables.get(command.of);
      const reply = rules ? answer(encode(command.request), rules) : null;
      scope.postMessage({ answered: command.ask, reply });
    } else if ("stop" in command) {
      served.get(command.stop)?.();
      served.delete(command.stop);
    } else {
      // Between two turns: draining takes turns of its own, and this one may have fetched events that are not handled yet.
      reactor.await(
        Promise.resolve().then(() => {
          server.drain(() => over);
          stopAll();
          scope.postMessage({ done: command.finish });
        }),
      );
    }
  };
  reactor.watch(commands, EPOLL.IN, () => {
    const n = read(commands, buffer);
    if (n === 0) {
      over = true;
      return reactor.stop();
    }
    const lines = (text + decoder.decode(buffer.subarray(0, n), { stream: true })).split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      perform(line);
      progress.advance();
    }
  });
  try {
    await reactor.live();
  } finally {
    stopAll();
  }
}
