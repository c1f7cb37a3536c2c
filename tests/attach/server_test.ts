// What a program's server of namespaces gives back if it cannot serve one.

import "../lib/preload.ts";
import { assert, assertThrows } from "@std/assert";
import { Agent } from "../../ffi/agent/agent.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { served, WorkerServer } from "../../mod/datapath/server/worker_server.ts";
import { test } from "../lib/helpers.ts";

test("nobody waits for a namespace that cannot be handed over, and what is held there ends", async () => {
  using server = new WorkerServer({});
  const agent = Agent.spawn();
  using process = openPid(agent.pid);
  const netns = { inum: 1, id: null };
  // No descriptor has this number, so there is none to be duplicated, as without room for one more.
  const tap = Fd.borrow(2 ** 30);
  const link = { tap, name: "tap0", mac: new Uint8Array(6), mtu: 1500, ipv4: null, ipv6: null };
  assertThrows(
    () => server.serve(link, null, () => {}, { netns, held: { agent, hold: "sockets" } }),
    SysError,
    "fcntl",
  );
  await served(netns);
  assert(isReadable(process), "the agent has not ended");
});
