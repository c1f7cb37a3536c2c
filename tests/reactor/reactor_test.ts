import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { pipe, read, write } from "../../ffi/sys/file.ts";
import { Reactor } from "../../mod/reactor/reactor.ts";
import { test } from "../lib/helpers.ts";

test("a handler that another handler removed in the same turn is not called", () => {
  using reactor = new Reactor();
  const ends = [pipe(), pipe()];
  const called: number[] = [];
  const registrations = ends.map(([reader], i) =>
    reactor.watch(reader, EPOLL.IN, () => {
      called.push(i);
      registrations[1 - i]!.remove();
    })
  );
  for (const [, writer] of ends) write(writer, new Uint8Array(1));
  reactor.turn(1000);
  assertEquals(called.length, 1);
  reactor.turn(0);
  assertEquals(new Set(called).size, 1);
  for (const fd of ends.flat()) fd.close();
});

test("a reused slot does not get events of its previous descriptor", () => {
  using reactor = new Reactor();
  const [a, b, c] = [pipe(), pipe(), pipe()];
  const called: string[] = [];
  const second = reactor.watch(b[0], EPOLL.IN, () => called.push("b"));
  reactor.watch(a[0], EPOLL.IN, () => {
    called.push("a");
    second.remove();
    reactor.watch(c[0], EPOLL.IN, () => called.push("c")); // reuses b's slot
  });
  // The kernel reports in the order in which they became readable.
  write(a[1], new Uint8Array(1));
  write(b[1], new Uint8Array(1));
  reactor.turn(1000);
  assertEquals(called, ["a"]);
  for (const fd of [a, b, c].flat()) fd.close();
});

test("timers run in order of time, and cancelled ones do not run", () => {
  using reactor = new Reactor();
  const order: string[] = [];
  reactor.after(20, () => {
    order.push("late");
    reactor.stop();
  });
  reactor.after(1, () => order.push("early"));
  reactor.after(2, () => order.push("never")).cancel();
  const start = performance.now();
  reactor.run();
  assertEquals(order, ["early", "late"]);
  assert(performance.now() - start >= 19);
});

test("an expected answer is handled whether it comes at once or late, and timers stay on time", () => {
  const [reader, writer] = pipe();
  using reactor = new Reactor();
  const seen: string[] = [];
  using _registration = reactor.watch(reader, EPOLL.IN, () => {
    seen.push("event");
    read(reader, new Uint8Array(1));
  });
  for (let i = 0; i < 3; i++) {
    write(writer, new Uint8Array(1));
    reactor.expectAnswer();
    reactor.turn();
  }
  reactor.after(5, () => seen.push("timer"));
  const start = performance.now();
  reactor.expectAnswer(); // the last ones came at once, so the reactor polls, in vain
  reactor.turn();
  assert(performance.now() - start >= 4, "the turn did not wait for the timer");
  reactor.after(2, () => write(writer, new Uint8Array(1)));
  reactor.expectAnswer();
  reactor.turn();
  reactor.turn();
  assertEquals(seen, ["event", "event", "event", "timer", "event"]);
  reader.close();
  writer.close();
});
