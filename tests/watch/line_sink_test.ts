// Lines for a reader that is slow, or goes away.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { F, O } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { open, pipe, read } from "../../ffi/sys/file.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { Reactor } from "../../mod/reactor/reactor.ts";
import { LineSink } from "../../mod/watch/output/line_sink.ts";
import type { WatchEvent } from "../../mod/watch/facts/watch_event.ts";
import { test } from "../lib/helpers.ts";

function event(count: number): WatchEvent {
  return { event: "lost", mono: 0n, count, source: "reader" };
}

/** Formats a number as a long line that is not all ASCII. */
const format = (one: WatchEvent) => `${one.event === "lost" ? one.count : ""} ${"é".repeat(300)}\n`;

/** Both ends of a pipe, or of a socket. */
function ends(kind: "pipe" | "socket"): [Fd, Fd] {
  if (kind === "pipe") return pipe();
  const pair = new Int32Array(2);
  call(self, "socketpair", 1, 1 | 0o2000000, 0, out(new Uint8Array(pair.buffer)));
  return [self.open("fcntl", pair[0]!, F.DUPFD_CLOEXEC, 3), self.open("fcntl", pair[1]!, F.DUPFD_CLOEXEC, 3)].map(
    (fd, i) => {
      call(self, "close", pair[i]!);
      return fd;
    },
  ) as [Fd, Fd];
}

test("Many lines of one turn are written meanwhile", () => {
  const path = Deno.makeTempFileSync();
  try {
    using file = open(self, path, O.WRONLY);
    using reactor = new Reactor();
    using sink = new LineSink(reactor, file, { format, onRoom: () => {}, onGone: () => {} });
    for (let i = 0; i < 10_000; i++) {
      sink.put(event(i));
      assert(!sink.full);
    }
    sink.flush();
    assertEquals(Deno.readTextFileSync(path).split("\n").length, 10_001);
  } finally {
    Deno.removeSync(path);
  }
});

for (const kind of ["pipe", "socket"] as const) {
  test(`A ${kind} without a reader never blocks; the sink becomes full, and no line is torn`, () => {
    const [reader, writer] = ends(kind);
    using _reader = reader;
    using _writer = writer;
    using reactor = new Reactor();
    let room = 0;
    using sink: LineSink = new LineSink(reactor, writer, {
      format,
      onRoom: () => {
        room++;
        sink.flush();
      },
      onGone: () => {},
    });
    let made = 0;
    while (!sink.full) {
      sink.put(event(made++));
      if (made % 100 === 0) sink.flush();
      assert(made < 100_000);
    }
    sink.flush();
    assertEquals(sink.drained, false);
    assertEquals(call(self, "fcntl", writer, 3, 0) & O.NONBLOCK, 0); // F_GETFL: unchanged for other users of the descriptor
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(65536);
    let text = "";
    let whole = 0;
    while (whole < made) {
      text += decoder.decode(buffer.subarray(0, read(reader, buffer)), { stream: true });
      for (let at; (at = text.indexOf("\n")) >= 0; text = text.slice(at + 1)) {
        assertEquals(text.slice(0, at + 1), format(event(whole++)));
      }
      reactor.turn(0);
    }
    assert(room > 0);
    assert(sink.drained);
  });

  test(`onGone is called once when the reader of a ${kind} goes away, also while nothing is written`, () => {
    for (const writing of [false, true]) {
      const [reader, writer] = ends(kind);
      using _writer = writer;
      using reactor = new Reactor();
      let gone = 0;
      using sink = new LineSink(reactor, writer, { format, onRoom: () => {}, onGone: () => gone++ });
      reader.close();
      if (writing) {
        sink.put(event(1));
        sink.flush();
      } else reactor.turn(1000);
      assertEquals(gone, 1);
      sink.put(event(2));
      sink.flush();
      assertEquals(gone, 1);
    }
  });
}
