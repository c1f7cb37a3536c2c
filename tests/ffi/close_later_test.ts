// Descriptors are closed for good, though nobody waits for it.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { closeLater } from "../../ffi/agent/close_later.ts";
import { Agent } from "../../ffi/agent/agent.ts";
import { CLONE, O } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { createTap } from "../../ffi/net/tap.ts";
import { open, pipe, readText } from "../../ffi/sys/file.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { endAgents } from "../../mod/agents/enclosure.ts";
import { test, until } from "../lib/helpers.ts";

/** Waits until the other end of a pipe has been closed; a signal ends a single wait early. */
function isClosed(reader: Fd): boolean {
  for (let i = 0; i < 1000; i++) if (isReadable(reader, 100)) return true;
  return false;
}

test("a descriptor that is closed later is closed", () => {
  // The kernel may be busy with others, but these are closed one after another, as nothing else holds them.
  const pipes = Array.from({ length: 50 }, () => pipe());
  for (const [, writer] of pipes) closeLater(writer);
  for (const [reader, writer] of pipes) {
    assert(writer.closed);
    closeLater(writer); // does nothing the second time
    assert(isClosed(reader));
    reader.close();
  }
});

test("descriptors are closed later together, however many they are", () => {
  const pipes = Array.from({ length: 20 }, () => pipe());
  closeLater(...pipes.map(([, writer]) => writer));
  for (const [reader, writer] of pipes) {
    assert(writer.closed);
    assert(isClosed(reader));
    reader.close();
  }
});

test("a tap that is closed later disappears from a namespace that lives on", ["root", "tun"], async () => {
  const agent = Agent.spawn(CLONE.NEWNET);
  try {
    const tap = open(agent, "/dev/net/tun", O.RDWR);
    createTap(agent, tap, "tap9");
    const seen = () => orNull(() => readText(agent, "/proc/net/dev"))?.includes("tap9");
    assertEquals(seen(), true);
    closeLater(tap);
    await until("the tap is gone", () => !seen());
  } finally {
    endAgents([agent]);
  }
});
