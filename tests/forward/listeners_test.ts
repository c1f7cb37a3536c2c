// Which ports are listened on, as the kernel tells by sock_diag(7) and by proc(5): both must say the same.

import "../lib/preload.ts";
import { assertEquals, assertThrows } from "@std/assert";
import { SysError } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import { AF, NETLINK } from "../../ffi/net/constants.ts";
import { ListenerFiles } from "../../mod/forward/listener_files.ts";
import { counts, Listeners, type Reach } from "../../mod/forward/listeners.ts";
import { parseIp } from "../../mod/inet/ip.ts";
import { dumpSockets } from "../../mod/netlink/inet_diag.ts";
import { NetlinkSocket } from "../../mod/netlink/socket.ts";
import { test } from "../lib/helpers.ts";

/** Opens sockets at ports that the kernel chooses; ends with its stdin. */
const OPEN = `import json, socket, sys
held, ports = [], []
def bind(family, kind, address, only=0):
    s = socket.socket(family, kind)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    s.bind((address, 0)); held.append(s)
    # The kernel may give the same port at two addresses.
    if s.getsockname()[1] in ports: return bind(family, kind, address, only)
    ports.append(s.getsockname()[1])
    return s
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for address in ("0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1", "::ffff:127.0.0.1"):
        s = bind(socket.AF_INET6 if ":" in address else socket.AF_INET, kind, address)
        if kind == socket.SOCK_STREAM: s.listen()
bind(socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0") # bound, and does not listen
connected = bind(socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0")
connected.connect(("127.0.0.1", 9))
print(json.dumps(ports), flush=True); sys.stdin.read()`;

/** Which of the sockets count, in their order. */
const EXPECTED: Record<Reach, readonly string[]> = {
  elsewhere: ["TCP 0.0.0.0", "TCP ::", "UDP 0.0.0.0", "UDP ::"],
  loopback: ["TCP", "UDP"].flatMap((protocol) =>
    ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:127.0.0.1"].map((address) => `${protocol} ${address}`)
  ),
  any: ["TCP", "UDP"].flatMap((protocol) =>
    ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:127.0.0.1"].map((address) => `${protocol} ${address}`)
  ),
};
const NAMES = ["TCP", "UDP"].flatMap((protocol) =>
  ["0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1", "::ffff:127.0.0.1"].map((address) => `${protocol} ${address}`)
);

test("sockets that listen are told apart by address, and both ways to ask agree", ["package:python3"], async () => {
  const child = new Deno.Command("python3", { args: ["-c", OPEN], stdin: "piped", stdout: "piped" }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let said = "";
    while (!said.includes("\n")) said += (await reader.read()).value ?? "\n";
    const ports: number[] = JSON.parse(said);
    for (const reach of ["elsewhere", "loopback", "any"] as const) {
      for (const [name, Source] of [["sock_diag", Listeners], ["files", ListenerFiles]] as const) {
        using source = new Source(self, reach);
        const found = source.ports();
        const seen = ports.flatMap((port, i) => {
          const kind = i < 6 || i === 12 ? "TCP" : "UDP";
          return found[kind].has(port) ? [NAMES[i] ?? `${kind} that is no listener`] : [];
        });
        assertEquals([name, reach, seen], [name, reach, [...EXPECTED[reach]]]);
      }
    }
  } finally {
    await child.stdin.close();
    await reader.cancel();
    await child.status;
  }
});

test("addresses in 127.0.0.0/8 count as 127.0.0.1 does only where all of loopback does", () => {
  const seen = (text: string) =>
    (["elsewhere", "loopback", "any"] as const).filter((reach) => counts(parseIp(text)!, reach));
  assertEquals(seen("192.0.2.1"), ["elsewhere", "any"]);
  assertEquals(seen("2001:db8::1"), ["elsewhere", "any"]);
  assertEquals(seen("::ffff:192.0.2.1"), ["elsewhere", "any"]);
  assertEquals(seen("::ffff:0.0.0.0"), ["elsewhere", "loopback", "any"]);
  assertEquals(seen("127.9.9.9"), []);
  assertEquals(seen("127.0.0.1"), ["loopback", "any"]);
});

test("a kernel that cannot tell about a protocol says so, and is not taken for one without listeners", () => {
  using socket = new NetlinkSocket(self, NETLINK.SOCK_DIAG);
  const error = assertThrows(() => socket.dump(dumpSockets(AF.INET, 200, 10)), SysError);
  assertEquals(error.code, "ENOENT");
});
