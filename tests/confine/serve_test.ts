// A penne that serves namespaces confines itself: what it gives up, and what it can still do.

import { assert, assertEquals, assertMatch } from "@std/assert";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { E } from "../../ffi/core/errno.ts";
import { PID_FILE_RULES } from "../../mod/cli/report/pid_file.ts";
import { SEND_RULES } from "../../mod/cli/report/send.ts";
import { AGENT_ROLES } from "../../mod/confine/agent_rules.ts";
import { permittedCalls } from "../../mod/confine/permitted.ts";
import { runtimeRules } from "../../mod/confine/runtime.ts";
import { servingRules } from "../../mod/datapath/server/call_rules.ts";
import { endRules } from "../../mod/cli/attach.ts";
import { penne, sh, test, until } from "../lib/helpers.ts";
import { type Daemon, must, NetLab } from "../lib/netlab.ts";
import { assertConfined, assertRefused, isFiltered, loggedCalls, statusOf } from "./confined.ts";
import { assertRefusalsFail, assertRulesPass } from "./harmless.ts";

const NEEDS = [
  ...["root", "user", "tun", "package:iproute2", "package:util-linux", "package:procps"] as const,
  ...["package:python3", "package:iputils-ping"] as const,
];
/** The most system calls that serving may need. */
const LIMIT = 64;

/** A host that lets every group have ping sockets, as most do. */
async function openLab(): Promise<NetLab> {
  const lab = await NetLab.open();
  await lab.usual();
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]));
  return lab;
}

/** Starts `penne attach`, and waits until it is confined. */
async function attached(lab: NetLab, args: string[], how: { user?: boolean } = {}): Promise<Daemon> {
  const daemon = await lab.attach(args, how);
  await until("it is confined", () => isFiltered(daemon.child.pid));
  return daemon;
}

/** The rules of an attach of names, with a pid file. */
const attachRules = (pid: number): CallRule[] => [
  ...servingRules({ raw: false }),
  ...endRules([{ kind: "path", text: "", path: "" }], true, pid),
  ...SEND_RULES,
  ...PID_FILE_RULES,
  ...runtimeRules(pid),
];

test("attach keeps no capability, and few calls; each has a reason, and passes the filter", NEEDS, async (t) => {
  await using lab = await openLab();
  const top = await Deno.makeTempDir({ prefix: "penne-serve-" });
  lab.defer(() => Deno.remove(top, { recursive: true }));
  const guest = await lab.netns("guest");
  const daemon = await attached(lab, ["--log-level", "debug", "--pid-file", `${top}/pid`, guest]);
  const { pid } = daemon.child;
  await t.step("as the kernel sees it", () => {
    assertConfined(pid);
    assertEquals(BigInt(`0x${statusOf(pid)["CapBnd"]}`), 0n);
  });
  await t.step("as the log has it", async () => {
    await until("the list is there", () => /as attach: .*\n.*\n/.test(daemon.errors()));
    const calls = loggedCalls(daemon.errors(), "attach");
    assertEquals(calls, permittedCalls(attachRules(pid)));
    assert(calls.length <= LIMIT, `${calls.length}`);
  });
  await t.step("by each call", async () => {
    await assertRulesPass(pid, attachRules(pid));
    assertRefusalsFail(pid, attachRules(pid));
    assert(isFiltered(pid));
  });
  await t.step("until its end", async () => {
    daemon.child.kill("SIGTERM");
    assertEquals((await daemon.ended).code, 0, daemon.errors());
    assertEquals([...Deno.readDirSync(top)], []);
  });
  await t.step("as an unprivileged user", async () => {
    const sleeper = lab.start(["setpriv", "--reuid", "12345", "--clear-groups", "unshare", "-Urn", "sleep", "1000"]);
    const own = Deno.readLinkSync("/proc/self/ns/net");
    await until("it has its namespace", () => Deno.readLinkSync(`/proc/${sleeper.child.pid}/ns/net`) !== own);
    const argv = ["setpriv", "--reuid", "12345", "--clear-groups", penne(), "attach", `${sleeper.child.pid}`];
    const { child } = lab.start(lab.in(lab.host, argv), { cwd: "/" });
    await until("it is confined", () => isFiltered(child.pid));
    assertConfined(child.pid);
  });
});

test("Whoever takes attach over can write, execute, start, trace, enter and signal nothing", NEEDS, async () => {
  await using lab = await openLab();
  let guests = 0;
  await assertRefused(async () => await attached(lab, [await lab.netns(`taken${guests++}`)]), {
    // Files are read and removed by their names; here there is none.
    "openat(-100, 0, 0)": E.EFAULT,
    "unlinkat": E.EFAULT,
    // Agents are signalled, by descriptors that only they have.
    "pidfd_send_signal": E.EBADF,
    "socket": E.EPERM,
    "ioctl": E.ENOTTY,
  });
});

/** The agents of an attach with ports, by their names. */
function agentsOf(pid: number): [string, number][] {
  const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ").map(Number);
  return children.map((child): [string, number] => [statusOf(child)["Name"]!, child]).sort();
}

test(
  "The agents by which attach follows the host and opens sockets are confined, and their lists logged",
  NEEDS,
  async () => {
    await using lab = await openLab();
    const daemon = await attached(lab, ["--log-level", "debug", "--tcp-ports", "8080:80", await lab.netns("guest")]);
    await until("the lists are there", () => /as attach: .*\n.*\n/.test(daemon.errors()));
    const agents = agentsOf(daemon.child.pid);
    assertEquals(agents.map(([name]) => name), ["penne-follow", "penne-ports"]);
    for (const [name, pid] of agents) {
      const role = name === "penne-follow" ? "follow" : "ports";
      assertEquals(loggedCalls(daemon.errors(), name), permittedCalls(AGENT_ROLES[role]));
      assert(isFiltered(pid), name);
      const status = statusOf(pid);
      assertEquals([status["NoNewPrivs"], BigInt(`0x${status["CapBnd"]}`)], ["1", 0n]);
    }
  },
);

test("--no-confine of attach keeps all calls, also those of its agents, and warns", NEEDS, async () => {
  await using lab = await openLab();
  const daemon = await lab.attach(["--no-confine", "--tcp-ports", "8080:80", await lab.netns("guest")]);
  await until("it warns", () => daemon.errors().includes("penne: warning: not confined"));
  await until("its agents are there", () => agentsOf(daemon.child.pid).length === 2);
  for (const [name, pid] of [["attach", daemon.child.pid] as const, ...agentsOf(daemon.child.pid)]) {
    assertEquals(statusOf(pid)["Seccomp"], "0", name);
  }
});

/** What a program inside does: streams, datagrams and pings, so many times. */
const TRAFFIC = `
import socket, sys
address, count = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
for i in range(count):
    with socket.create_connection((address, 7000), 60) as s:
        s.sendall(b"x" * 1000)
        s.shutdown(socket.SHUT_WR)
        got = 0
        while part := s.recv(65536): got += len(part)
        assert got == 1000, got
with socket.socket(family, socket.SOCK_DGRAM) as u:
    u.settimeout(60)
    for i in range(count):
        u.sendto(b"y" * 100, (address, 7000))
        assert u.recv(1000) == b"y" * 100
    u.sendto(b"closed", (address, 7001))
with socket.socket(family, socket.SOCK_STREAM) as s:
    s.settimeout(60)
    assert s.connect_ex((address, 7001)) == 111
`;

/** Connects until that works. */
const PATIENT = `
import socket, sys, time
for i in range(600):
    try:
        socket.create_connection((sys.argv[1], 7000), 60).close()
        break
    except OSError:
        time.sleep(0.1)
else: sys.exit(1)
`;

/** Connects, and prints the error. */
const IN_VAIN = `
import socket, sys
s = socket.socket()
s.settimeout(3)
print(s.connect_ex((sys.argv[1], 7000)))
`;

/** Answers with what it gets. */
const ECHO = `
import socket, threading
def datagrams():
    u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    u.bind(("::", 7000))
    while True: u.sendto(*u.recvfrom(65536))
threading.Thread(target=datagrams, daemon=True).start()
s = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
print("listens", flush=True)
while True:
    c, _ = s.accept()
    while part := c.recv(65536): c.sendall(part)
    c.close()
`;

test(
  "A confined attach goes on with full disks, few descriptors, another resolver, and a host that changes",
  NEEDS,
  async (t) => {
    await using lab = await openLab();
    const top = await Deno.makeTempDir({ prefix: "penne-serve-" });
    lab.defer(() => sh(["sh", "-c", `umount ${top}/full; rm -r ${top}`]).then(() => {}));
    // A file system without room, and an /etc of which the resolver's file can be removed.
    const prepared = `mkdir ${top}/full ${top}/etc && mount -t tmpfs -o size=64k none ${top}/full &&
      cp /etc/passwd /etc/group ${top}/etc && echo nameserver 192.0.2.1 >${top}/etc/resolv.conf`;
    await must(["sh", "-c", prepared]);
    const guest = await lab.netns("guest");
    const echo = lab.start(lab.in(lab.peer, ["python3", "-c", ECHO]));
    await until("it listens", () => echo.output() !== "");
    const options = ["--log-level", "debug", "--log-file", `${top}/full/log`, "--pid-file", `${top}/full/pid`];
    const attach = [penne(), "attach", "--status-fd", "1", ...options, "--dns-forward", "192.0.2.53", guest];
    const daemon = lab.start(
      lab.in(lab.host, ["unshare", "-m", "sh", "-c", `mount --bind ${top}/etc /etc && exec "$@"`, "sh", ...attach]),
      { cwd: "/" },
    );
    const { pid } = daemon.child;
    await until("it is ready", () => daemon.output().includes('"ready"'));
    await until("it is confined", () => isFiltered(pid));
    const changes = () => daemon.output().split('"event":"network"').length;
    const works = async (count = 1) => {
      for (const address of ["192.0.2.1", "2001:db8::1"]) {
        const { code, stderr } = await lab.run(guest, ["python3", "-c", TRAFFIC, address, `${count}`]);
        assertEquals(code, 0, stderr);
        assertEquals((await lab.run(guest, ["ping", "-c", "1", "-W", "30", address])).code, 0);
      }
      assert(isFiltered(pid));
    };
    await t.step("traffic of all kinds, compiled and thrown away by V8", () => works(300));
    await t.step("the disk is full", async () => {
      await sh(["sh", "-c", `cat /dev/zero >${top}/full/rest`]);
      await lab.ip(lab.host, "addr", "add", "192.0.2.77/24", "dev", "up0"); // which is logged
      await works();
    });
    await t.step("the resolver vanishes, and comes back", async () => {
      const ask = [
        "python3",
        "-c",
        `import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.connect(("192.0.2.53", 53))
u.send(b"question")`,
      ];
      for (const change of ["true", `rm ${top}/etc/resolv.conf`, `echo nameserver 192.0.2.1 >${top}/etc/resolv.conf`]) {
        await must(["sh", "-c", change]);
        await must(lab.in(guest, ask));
        await must(lab.in(guest, ["python3", "-c", PATIENT, "192.0.2.1"]));
      }
    });
    await t.step("descriptors run out", async () => {
      await must(["prlimit", "--pid", `${pid}`, "--nofile=8:"]);
      const { stdout } = await lab.run(guest, ["python3", "-c", IN_VAIN, "192.0.2.1"]);
      assertMatch(stdout, /^[1-9]/); // it is refused, or gets no answer
      await must(["prlimit", "--pid", `${pid}`, "--nofile=1024:"]);
      await must(lab.in(guest, ["python3", "-c", PATIENT, "192.0.2.1"]));
      await works();
    });
    await t.step("the interface of the host goes, and comes back", async () => {
      const before = changes();
      await lab.ip(lab.host, "link", "set", "up0", "down");
      await until("it has followed", () => changes() > before);
      await lab.ip(lab.host, "link", "set", "up0", "up");
      await lab.ip(lab.host, "addr", "add", "2001:db8::2/64", "dev", "up0", "nodad");
      await lab.ip(lab.host, "route", "add", "default", "via", "192.0.2.1");
      await lab.ip(lab.host, "route", "add", "default", "via", "2001:db8::1");
      await must(lab.in(guest, ["python3", "-c", PATIENT, "2001:db8::1"]));
      await works();
    });
    await t.step("its end", async () => {
      daemon.child.kill("SIGQUIT");
      assertEquals((await daemon.ended).code, 0, daemon.errors());
      assertEquals([...Deno.readDirSync(`${top}/full`)].map(({ name }) => name).sort(), ["log", "rest"]);
    });
  },
);

test("Code that the data path loads late is loaded before it confines itself", async () => {
  const root = new URL("../../mod/", import.meta.url);
  const rooms = ["advice", "control", "datapath", "flows", "follow", "forward", "host", "inet", "netlink", "netns"];
  const late = new Set<string>();
  const walk = async (directory: URL) => {
    for await (const { name, isDirectory } of Deno.readDir(directory)) {
      const url = new URL(isDirectory ? `${name}/` : name, directory);
      if (isDirectory) await walk(url);
      else if (!name.endsWith("call_rules.ts")) {
        const text = await Deno.readTextFile(url);
        for (const [, path] of text.matchAll(/^(?! *(?:\*|\/\/)).*\bimport\(\s*"([^"]+)"/gm)) {
          late.add(new URL(path!, url).pathname);
        }
      }
    }
  };
  for (const room of [...rooms, "network", "pesto", "reactor"]) await walk(new URL(`${room}/`, root));
  const list = new URL("datapath/server/call_rules.ts", root);
  const early = new Set(
    [...(await Deno.readTextFile(list)).matchAll(/\bimport\("([^"]+)"\)/g)].map(([, path]) =>
      new URL(path!, list).pathname
    ),
  );
  // What explains a failure is not asked for any more: penne says so instead.
  const explains = /\/(?:findings\/mod|forward\/holder)\.ts$/;
  // What a command line asks for is loaded before anything is served.
  const asked = /\/datapath\/allow\/allow_list\.ts$/;
  const unlisted = [...late].filter((path) => !explains.test(path) && !asked.test(path));
  assertEquals(unlisted.sort(), [...early].sort());
  assertMatch([...early].join(), /follower/);
});
