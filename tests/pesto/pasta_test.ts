// pesto and pasta: ours with those of Debian and with each other, and clients that are wrong.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { killIfAlive, penne, test, until } from "../lib/helpers.ts";
import { type Daemon, must } from "../lib/netlab.ts";
import { CLIENT, NEEDS, PortsLab } from "../cli/ports/lab.ts";

/** The program under another name, which is a symbolic link. */
function named(name: string): string {
  const path = penne().replace(/penne$/, name);
  try {
    Deno.symlinkSync("penne", path);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  return path;
}

/** The command line of a newer Debian's pesto, which is beside its pasta. */
function theirs(): string[] {
  const script = Deno.readTextFileSync("/usr/local/bin/pasta-newer");
  const line = script.split("\n").find((text) => text.startsWith("exec "))!;
  return line.slice("exec ".length).replace(/ "\$@"$/, "").replace(/pasta$/, "pesto").split(" ");
}

const ports = (...lines: string[]) => lines.map((line) => `    ${line}\n`).join("");

/** Processes that a daemon has started. */
function childrenOf({ child: { pid } }: Daemon): string[] {
  return Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean);
}

/** Asks the server of a port, from inside the namespace of a pasta. */
async function askInside(daemon: Daemon, kind: string, address: string, port: number): Promise<string> {
  const net = (pid: number | string) => Deno.readLinkSync(`/proc/${pid}/ns/net`);
  const child = childrenOf(daemon).find((pid) => net(pid) !== net(daemon.child.pid));
  const argv = ["nsenter", `--net=/proc/${child}/ns/net`, "python3", CLIENT, "ask", kind, address, `${port}`];
  return (await must(argv)).trim();
}

/** Starts a pasta with a control socket, and a server inside on port 80. */
async function begin(lab: PortsLab, program: string, socket: string): Promise<Daemon> {
  const options = ["-f", "-c", socket, "--config-net", "-t", "8080:80", "-u", "none", "-T", "none", "-U", "none"];
  const client = new URL("../cli/ports/client.py", import.meta.url).pathname;
  const daemon = lab.start(lab.on([program, ...options, "--", "python3", client, "serve", "80"]), { cwd: "/" });
  let over = false;
  daemon.ended.then(() => over = true);
  await until("the server listens", () => over || daemon.output() === "ready\n");
  assert(!over, daemon.errors());
  // Unlike ours, Debian's pasta may be killed without its command.
  const children = childrenOf(daemon);
  lab.defer(async () => {
    for (const child of children) await killIfAlive(Number(child));
  });
  return daemon;
}

/** Runs a pesto. */
async function pesto(lab: PortsLab, program: readonly string[], ...args: string[]) {
  const { code, stdout, stderr } = await lab.sh(lab.on([...program, ...args]));
  return { code, stdout, stderr };
}

const OURS = () => [named("pesto")];
const PAIRS: readonly (readonly [string, () => string, () => string[]])[] = [
  ["Debian's pesto changes the ports of our pasta", () => named("pasta"), theirs],
  ["our pesto changes the ports of Debian's pasta", () => "pasta-newer", OURS],
  ["our pesto changes the ports of our pasta", () => named("pasta"), OURS],
];

for (const [title, pasta, client] of PAIRS) {
  test(title, [...NEEDS, "newer pasta"], async () => {
    await using lab = await PortsLab.open();
    const socket = `${lab.runtime}/pasta.sock`;
    const daemon = await begin(lab, pasta(), socket);
    const ask = (kind: string, port: number) => lab.client(lab.peer, "ask", kind, "192.0.2.2", `${port}`);
    const change = (...args: string[]) => pesto(lab, client(), ...args, socket);
    const done = { code: 0, stdout: "", stderr: "" };
    const head = `passt/pasta configuration (${socket})\n`;
    const first = "TCP [*]:8080  =>  80 ";
    assertEquals(await change(), { ...done, stdout: `${head}  HOST\n${ports(first)}  SPLICE\n` });

    assertEquals(await change("-A", "-t", "0.0.0.0/9090:80", "-u", "9000-9001:80-81"), done);
    assertEquals([await ask("tcp", 9090), await ask("udp", 9000), await ask("tcp", 8080)], ["hello", "hello", "hello"]);
    const all = ["TCP [0.0.0.0]:9090  =>  80 ", "UDP [*]:9000-9001  =>  80-81 "];
    const { stdout } = await change("-s", "-D", "-t", "8080:80");
    assertEquals(
      stdout,
      `Previous configuration (${socket})\n  HOST\n${ports(first, ...all)}  SPLICE\n` +
        `Updated configuration (${socket})\n  HOST\n${ports(...all)}  SPLICE\n`,
    );
    assertEquals(await ask("tcp", 8080), "ConnectionRefusedError");

    const refused = { ...done, code: 1 };
    assertEquals(await change("-A", "-t", "9999", "-t", "9090"), {
      ...refused,
      stderr: "Forwarding configuration conflict: TCP [*]:9090  =>  9090  versus TCP [0.0.0.0]:9090  =>  80 \n" +
        "Unable to add rule TCP [*]:9090  =>  9090 \n",
    });
    assertEquals(await change("-D", "-t", "9091"), {
      ...refused,
      stderr: "Couldn't find forwarding rule to delete: TCP [*]:9091  =>  9091 \n" +
        "Unable to delete rule TCP [*]:9091  =>  9091 \n",
    });
    assertEquals(await change("-C", "NOPE"), { ...refused, stderr: "Unsupported pif name NOPE\n" });
    assertEquals(await lab.open(), ["tcp 9090", "udp 9000", "udp 9001"]);
    assertEquals(await change("-C", "HOST"), done);
    assertEquals(await change("-t", "7001:80"), done);
    assertEquals(await ask("tcp", 7001), "hello");
    assertEquals(await lab.open(), ["tcp 7001"]);

    // Ports inside that lead to the host.
    await lab.begin(lab.host, "serve", "6000");
    const out = (kind: string, port: number) => askInside(daemon, kind, "127.0.0.1", port);
    assertEquals(await change("-A", "-T", "6000,6002:6000", "-U", "6001:6000"), done);
    const [tcp, moved, udp] = [
      "TCP [*]%lo:6000  =>  6000 ",
      "TCP [*]%lo:6002  =>  6000 ",
      "UDP [*]%lo:6001  =>  6000 ",
    ];
    const now = async (...rules: string[]) =>
      assertEquals(
        (await change()).stdout,
        `${head}  HOST\n${ports("TCP [*]:7001  =>  80 ")}  SPLICE\n${ports(...rules)}`,
      );
    await now(tcp, moved, udp);
    const answers = [await out("tcp", 6000), await out("tcp", 6002), await out("udp", 6001)];
    assertEquals(answers, ["hello", "hello", "hello"]);
    assertEquals(await change("-D", "-T", "6000"), done);
    await now(moved, udp);
    assertEquals(await out("tcp", 6000), "ConnectionRefusedError");
    assertEquals(await out("tcp", 6002), "hello");
    assertEquals(await change("-D", "-U", "6001:6000"), done);
    await now(moved);
    assertEquals([await out("udp", 6001), await ask("tcp", 7001)], ["ConnectionRefusedError", "hello"]);
    assertEquals(await change("-C", "SPLICE"), done);
    await now();
    assertEquals(await out("tcp", 6002), "ConnectionRefusedError");
  });
}

test("many clients at once, ours and Debian's, each find what those before have changed", [
  ...NEEDS,
  "newer pasta",
], async () => {
  await using lab = await PortsLab.open();
  const socket = `${lab.runtime}/pasta.sock`;
  await begin(lab, named("pasta"), socket);
  const numbers = Array.from({ length: 12 }, (_, i) => 20_000 + i);
  const results = await Promise.all(
    numbers.map((port, i) => pesto(lab, i % 2 ? OURS() : theirs(), "-A", "-t", `${port}:80`, socket)),
  );
  assertEquals(results.filter(({ code }) => code !== 0), []);
  assertEquals(await lab.open(), ["tcp 8080", ...numbers.map((port) => `tcp ${port}`)].sort());
});

test("our pesto tells of a port that could not be opened, and other ports stay as they are", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const socket = `${lab.runtime}/pasta.sock`;
  const daemon = await begin(lab, named("pasta"), socket);
  const holder = lab.start(lab.on(["python3", "-m", "http.server", "8090"], true));
  await until("the server listens", () => /:1F9A /.test(Deno.readTextFileSync(`/proc/${holder.child.pid}/net/tcp`)));
  assertEquals(await pesto(lab, OURS(), "-A", "-t", "8090", "-t", "8091", socket), {
    code: 1,
    stdout: "",
    stderr: "Couldn't listen on requested ports: TCP [*]:8090  =>  8090\n",
  });
  assertMatch(daemon.errors(), /Listen failed for TCP \[\*\]:8090 .*Address already in use\n/);
  assertEquals(await lab.client(lab.peer, "ask", "tcp", "192.0.2.2", "8080"), "hello");
  assertEquals(await lab.open(), ["tcp 8080", "tcp 8090", "tcp 8091"]);
});

test("a client that is silent, wrong or another user's holds nobody up for long", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const socket = `${lab.runtime}/pasta.sock`;
  const daemon = await begin(lab, named("pasta"), socket);
  assertEquals(Deno.statSync(socket).mode! & 0o777, 0o600);
  const script = `
import socket, sys, random, time
random.seed(14)
for i in range(40):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(sys.argv[1])
        assert s.recv(8) == b"basil:s\\0"
        try: s.sendall(random.randbytes(random.randrange(1, 3000)) if i else b"\\1" * 300000)
        except OSError: pass
held = socket.socket(socket.AF_UNIX)
held.connect(sys.argv[1])
held.send(b"\\1\\0\\0")
print("held", flush=True)
time.sleep(100)
`;
  const hostile = lab.start(lab.on(["python3", "-c", script, socket]));
  await until("the socket is held", () => hostile.output() === "held\n");
  // The network goes on meanwhile, and the next client is let in when that one's time is over.
  assertEquals(await lab.client(lab.peer, "ask", "tcp", "192.0.2.2", "8080"), "hello");
  assertEquals((await pesto(lab, OURS(), "-A", "-t", "8091", socket)).code, 0);
  assertEquals(await lab.open(), ["tcp 8080", "tcp 8091"]);
  assertMatch(daemon.errors(), /sends what has no meaning/);
  const other = ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "--inh-caps=-all"];
  Deno.chmodSync(lab.runtime, 0o755);
  Deno.chmodSync(socket, 0o666);
  const { code, stderr } = await lab.sh([...other, ...OURS(), socket]);
  assertEquals([code, stderr], [1, `Failed to read from ${socket}: it lets nobody in\n`]);
});

test(
  "what is at the place of the socket is replaced if nobody listens on it, and the socket goes at the end",
  NEEDS,
  async () => {
    await using lab = await PortsLab.open();
    const socket = `${lab.runtime}/pasta.sock`;
    const first = await begin(lab, named("pasta"), socket);
    const again = (path: string) => pesto(lab, [named("pasta")], "-f", "-c", path, "--", "true");
    assertEquals(await again(socket), { code: 1, stdout: "", stderr: `Socket path ${socket} already in use\n` });
    first.child.kill("SIGKILL");
    await first.ended;
    assertEquals(Deno.lstatSync(socket).isSocket, true);
    assertEquals((await again(socket)).code, 0);
    assertEquals((await lab.sh(["ls", lab.runtime])).stdout.includes("pasta.sock"), false);
    Deno.writeTextFileSync(`${lab.runtime}/file`, "kept");
    Deno.symlinkSync("file", `${lab.runtime}/link`);
    for (const name of ["file", "link"]) {
      const path = `${lab.runtime}/${name}`;
      assertEquals((await again(path)).stderr, `Socket path ${path} already in use\n`);
    }
    assertEquals(Deno.readTextFileSync(`${lab.runtime}/file`), "kept");
    assertMatch((await again(`${lab.runtime}/no/such`)).stderr, /^Failed to bind UNIX domain socket: No such file/);
    assertMatch((await again(`/${"x".repeat(120)}`)).stderr, /^Invalid configuration path: \/x/);
  },
);
