// Ports that follow listeners: how soon, what it costs while nothing changes, and open files for all ports.

import { assert, assertEquals } from "@std/assert";
import { asUser, sh, test, until } from "../lib/helpers.ts";
import { type Daemon, NetLab } from "../lib/netlab.ts";
import { call, Engine, pasta, running } from "./lib.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;

/** Opens ports of TCP and UDP, or closes them, as it is told. */
const SERVER = `import socket, sys
port, held = int(sys.argv[1]), []
for line in sys.stdin:
    for s in held: s.close()
    held = []
    if line == "open\\n":
        held = [socket.create_server(("", port)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        held[1].bind(("", port))
    print(line, end="", flush=True)`;

/** A server that listens or not, as it is told. */
class Server {
  readonly daemon: Daemon;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;

  constructor(lab: NetLab, inside: (argv: string[]) => string[], readonly port: number) {
    this.daemon = lab.start(inside(["python3", "-c", SERVER, `${port}`]), { cwd: "/", stdin: "piped" });
    this.#stdin = this.daemon.child.stdin.getWriter();
    lab.defer(() => this.#stdin.abort().catch(() => {}));
  }

  async tell(what: "open" | "close"): Promise<void> {
    const said = this.daemon.output().length;
    await this.#stdin.write(new TextEncoder().encode(`${what}\n`));
    await until(`it is told to ${what}`, () => this.daemon.output().length > said);
  }
}

/** Whether all of TCP and UDP, or nothing, has a port where a process is. */
function ports(pid: number, port: number): "open" | "close" | null {
  const pattern = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, "0")} \\S+:0000 0[A7] `);
  const has = (name: string) => pattern.test(Deno.readTextFileSync(`/proc/${pid}/net/${name}`));
  const found = [has("tcp") || has("tcp6"), has("udp") || has("udp6")];
  return found.every(Boolean) ? "open" : found.some(Boolean) ? null : "close";
}

/** Times that a process has waited, and nanoseconds of processor time that it has taken. */
function cost(pid: number): { waits: number; time: number } {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const [time] = Deno.readTextFileSync(`/proc/${pid}/schedstat`).split(" ");
  return { waits: Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1]), time: Number(time) };
}

/** How often ports are opened and closed. */
const [LEAST, MOST] = [4, 12];
/** Seconds for which nothing changes, of which the best counts. */
const IDLE = 3;

test("ports follow listeners within a second in both directions, and cost little while nothing changes", [
  ...NEEDS,
  "package:python3",
], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const engine = await Engine.open(lab);
  const child = await engine.alone(["sleep", "1000"]);
  const outside = new Server(lab, (argv) => lab.in(lab.host, argv), 7301);
  const inside = new Server(lab, (argv) => engine.inside(`/proc/${child.pid}/ns/net`, argv), 7302);
  const words = [pasta(), "--quiet", "--config-net", `${child.pid}`];
  assertEquals((await call(engine.argv(words))).code, 0);
  const [pid] = running(words);
  // Another look is given to what was late: the machine may stop all of these processes for a moment.
  const late: string[] = [];
  for (let i = 0; i < LEAST || late.length > 2 * i && i < MOST; i++) {
    for (const what of ["open", "close"] as const) {
      // At any moment between two looks.
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 500));
      await Promise.all([outside.tell(what), inside.tell(what)]);
      const start = performance.now();
      const follows = async (name: string, at: number, port: number) => {
        await until(`${name}: ${what}`, () => ports(at, port) === what);
        const time = performance.now() - start;
        if (time > 1000) late.push(`${name}: ${what} after ${Math.round(time)} ms`);
      };
      await Promise.all([follows("inside", child.pid, 7301), follows("outside", engine.pid, 7302)]);
    }
  }
  assert(late.length <= 2 * MOST, late.join());
  let [waits, time] = [Infinity, Infinity];
  for (let i = 0; i < IDLE; i++) {
    const before = cost(pid!);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const after = cost(pid!);
    waits = Math.min(waits, after.waits - before.waits);
    time = Math.min(time, (after.time - before.time) / 1e6);
  }
  // Two or less, and one millisecond: to read the tables of proc(5) instead takes forty. A second takes longer, too, where
  // the machine is busy.
  assert(waits <= 6 && time <= 15, `it has waited ${waits} times a second, and has taken ${time} ms of each`);
});

test("for all ports, penne raises its limit on open files", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const script = 'ulimit -Sn 256; exec "$0" "$@"';
  const ports = ["-t", "all,~1-32000,~61000-65535", "-u", "none", "-T", "none", "-U", "none"];
  const words = [pasta(), "--config-net", ...ports, "sh", "-c", "ulimit -n; echo; exec sleep 1000"];
  const daemon = lab.start(lab.in(lab.host, asUser(["sh", "-c", script, ...words])), { cwd: "/" });
  await until("the command runs", () => daemon.output() !== "");
  const { stdout } = await sh(lab.in(lab.host, ["ss", "-Htln"]));
  assertEquals(stdout.trim().split("\n").length, 32767 - 32000);
  assertEquals(daemon.output().trim(), "256"); // that of the command is the caller's
});
