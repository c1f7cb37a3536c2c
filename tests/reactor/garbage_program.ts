// Drops objects in several ways, and prints after how many milliseconds V8 collected garbage. V8 exposes gc() only if it is
// told so at the start.

import { Garbage } from "../../mod/reactor/garbage.ts";
import { Reactor } from "../../mod/reactor/reactor.ts";

/** Collections that are due, and milliseconds in which they come even on a slow machine, and in which others would. */
const DUE = 4;
const LIMIT = 60_000;
const MORE = 1000;

const { gc } = globalThis as unknown as { gc: (how: unknown) => void };
const times: number[] = [];
const start = performance.now();
using reactor = new Reactor();
Object.assign(globalThis, {
  gc: (how: unknown) => {
    gc(how);
    times.push(performance.now() - start);
    if (times.length === DUE) reactor.after(MORE, () => reactor.stop());
  },
});

function drop(count: number, alive?: number, patience?: number): Garbage {
  const garbage = new Garbage(500, patience);
  garbage.add(count);
  garbage.collectLater(reactor, alive);
  return garbage;
}

drop(499); // too few
drop(600, 4000); // too few for what is alive
drop(50, 0); // enough, as nothing is alive
drop(500);
const storm = drop(500);
reactor.after(1000, () => storm.add(100));
const busy = drop(500, 1, 6000);
const busyForever = drop(500);
const more = () => {
  busy.add(30);
  busyForever.add(30);
  reactor.after(50, more);
};
more();
reactor.after(LIMIT, () => reactor.stop());
reactor.run();
console.log(JSON.stringify(times));
