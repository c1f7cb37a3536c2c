// The host's TCP ports that namespaces get, and what is known of those that are taken.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { parseIp } from "../../mod/inet/ip.ts";
import { wordsOf } from "../../mod/inet/ip_words.ts";
import { type Range, TcpPorts } from "../../mod/datapath/netif/tcp_ports.ts";
import { test } from "../lib/helpers.ts";

const to = (text: string, port: number) => ({ ...wordsOf(parseIp(text)!), port });

test("whatever the range and the number of namespaces, parts are in it, and own ones are apart", () => {
  for (const range of [[32768, 60999], [1024, 65535], [40000, 40015], [5, 5], [1, 2]] as Range[]) {
    const [first, last] = range;
    using owned = new DisposableStack();
    const all = [1, 2, 3, 40].flatMap((count) =>
      Array.from({ length: count }, () => owned.use(new TcpPorts(() => range)))
    );
    const own = all.flatMap(({ parts }) => parts.slice(1));
    for (const [low, high] of all.flatMap(({ parts }) => parts)) assert(first <= low && low <= high && high <= last);
    for (const [i, [low]] of own.entries()) assert(i === 0 || low > own[i - 1]![1]);
    if (last - first > 10) {
      const most = Math.max(...all.flatMap(({ parts }) => parts).map(([, high]) => high));
      assert(last - most >= Math.floor((last - first + 1) / 8), `${most} of ${last}`);
    }
  }
});

test("a destination whose ports are taken is not tried again for a moment, and others are", () => {
  using ports = new TcpPorts(() => [40000, 40799]);
  assert(!ports.isFull(to("192.0.2.1", 80), 1000));
  ports.noteFull(to("192.0.2.1", 80), 1000);
  assert(ports.isFull(to("192.0.2.1", 80), 1199));
  for (const other of [to("192.0.2.2", 80), to("192.0.2.1", 81), to("2001:db8::1", 80)]) {
    assert(!ports.isFull(other, 1001));
  }
  assert(!ports.isFull(to("192.0.2.1", 80), 1200));
  // However many there are, they take little memory.
  for (let port = 1; port < 10_000; port++) ports.noteFull(to("192.0.2.1", port), 2000);
  assertEquals(
    Array.from({ length: 10_000 }, (_, port) => ports.isFull(to("192.0.2.1", port), 2001)).filter(Boolean).length <= 64,
    true,
  );
});
