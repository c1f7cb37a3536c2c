// planRun() with facts that are handed in: nothing is looked up.

import { assertEquals, assertThrows } from "@std/assert";
import { PenneError } from "../../mod/base/errors.ts";
import { parseNameServer } from "../../mod/host/resolv_conf.ts";
import { parseIp } from "../../mod/inet/ip.ts";
import { planRun, type RunFacts, type RunOptions } from "../../mod/run/plan.ts";
import { test } from "../lib/helpers.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

const ALICE = { name: "alice", uid: 1000, gid: 100, home: "/home/alice", shell: "/bin/zsh" };

/** An unprivileged caller without subordinate ids, on a host without a network. */
const FACTS: RunFacts = {
  caller: { uid: 1000, gid: 100, capabilities: 0n, blocked: 5n },
  uid: 1000,
  lookUp: () => null,
  environment: [encode("PATH=/bin"), encode("A=1")],
  user: null,
  map: null,
  network: { links: [], ipv4: null, ipv6: null },
  hostname: "",
  mountinfo: "",
};

const plan = (options: RunOptions, facts: Partial<RunFacts> = {}) => planRun(options, { ...FACTS, ...facts });

function refusal(options: unknown): string {
  const error = assertThrows(() => plan(options as RunOptions), PenneError);
  assertEquals(error.usage, true);
  return error.message;
}

test("the default is a root shell in six namespaces", () => {
  assertEquals(plan({}), {
    namespaces: ["user", "mnt", "pid", "ipc", "uts", "net"],
    maps: {
      users: { ranges: [{ inside: 0, outside: 1000, count: 1 }], tool: false },
      groups: { ranges: [{ inside: 0, outside: 100, count: 1 }], tool: false },
      denySetgroups: true,
    },
    become: { uid: null, gid: null },
    commandUid: 1000,
    exposed: false,
    hostname: null,
    clocks: { monotonic: 0, boottime: 0 },
    ownInit: false,
    network: null,
    reach: {},
    files: [],
    mounts: null,
    views: [{ type: "pid", path: "/proc", fs: "proc", flags: 14, options: [], kept: [], hidden: null }],
    command: {
      program: { file: "/bin/sh", argv: ["-sh"] },
      environment: FACTS.environment,
      blocked: 5n,
      keepFds: [],
      newSession: false,
      shareTerminal: false,
      keepCaps: false,
      noNewPrivs: false,
      killSignal: "KILL",
      uid: null,
      gid: null,
      cwd: null,
    },
  });
});

test("the login shell is that of SHELL, of /etc/passwd, or /bin/sh", () => {
  const shell = (options: RunOptions, facts?: Partial<RunFacts>) => plan(options, facts).command.program;
  assertEquals(shell({ env: { SHELL: "/opt/fish" } }, { user: ALICE }), { file: "/opt/fish", argv: ["-fish"] });
  assertEquals(shell({ env: { SHELL: "" } }, { user: ALICE }), { file: "/bin/zsh", argv: ["-zsh"] });
  assertEquals(shell({}, { user: { ...ALICE, shell: "" } }), { file: "/bin/sh", argv: ["-sh"] });
});

test("the environment is the caller's or empty, and variables are set in it", () => {
  const variables = (options: RunOptions) => plan(options).command.environment.map(decode);
  assertEquals(variables({ env: { A: "2", B: "3=4" } }), ["PATH=/bin", "A=2", "B=3=4"]);
  assertEquals(variables({ clearEnv: true, env: { A: "2" } }), ["A=2"]);
});

test("namespaces follow from --unshare, --net and the clocks", () => {
  const types = (options: RunOptions) => plan(options).namespaces;
  assertEquals(types({ net: "host" }), ["user", "mnt", "pid", "ipc", "uts"]);
  assertEquals(types({ unshare: ["user"], net: "none" }), ["user", "net"]);
  assertEquals(types({ unshare: ["user"], monotonic: 0 }), ["user", "time"]);
  assertEquals(plan({ unshare: ["user"], init: false }).ownInit, false);
  assertEquals(plan({ unshare: ["user", "pid"], init: false }).ownInit, true);
});

test("the first process takes ids that are mapped if the caller's are not", () => {
  const become = (options: RunOptions["map"]) => plan({ map: options ?? {} }).become;
  const range = (inside: number, outside: number) => ({ inside, outside, count: 10 });
  assertEquals(become({ users: [range(50, 70000), range(0, 80000)], groups: [range(7, 70000)] }), { uid: 0, gid: 7 });
  assertEquals(become({ users: [range(5, 995)] }), { uid: null, gid: null });
  assertEquals(become({ mode: "none" }), { uid: null, gid: null });
});

test("the map mode auto takes the subordinate ids of the facts", () => {
  const range = (start: number) => ({
    ranges: [{ start, count: 10 }],
    looked: "/etc/subuid",
    unseen: null,
    others: [],
    free: null,
  });
  const user = { user: ALICE, looked: "/etc/passwd", unseen: null };
  const { maps } = plan({ map: { mode: "auto" } }, { map: { user, users: range(100000), groups: range(200000) } });
  assertEquals(maps!.users!.ranges.at(-1), { inside: 1, outside: 100000, count: 10 });
});

test("a tap gives the resolver an address of its own, and the command a resolv.conf", () => {
  const conf = (options: RunOptions, host: string, facts: Partial<RunFacts> = {}) => {
    const [file] = plan({ net: "tap", ...options }, facts).files;
    assertEquals(file?.path, "/etc/resolv.conf");
    return decode((file!.content as (host: Uint8Array) => Uint8Array)(encode(host)));
  };
  const own = plan({ net: "tap" });
  assertEquals(own.network!.warnings, []);
  assertEquals(own.reach.dnsForward?.length, 2);
  const host = "nameserver 203.0.113.1\nsearch example\noptions edns0\nsortlist 10.0.0.0\n";
  const rest = "options edns0\nsortlist 10.0.0.0\n";
  assertEquals(conf({}, host), `nameserver 169.254.1.1\nsearch example\n${rest}`);
  assertEquals(conf({}, ""), "nameserver 169.254.1.1\n");
  // As many lines as there are servers behind the resolver, since the C library may ask each line once only.
  const three = [1, 2, 3, 4].map((i) => `nameserver 203.0.113.${i}\n`).join("");
  assertEquals(conf({}, three), "nameserver 169.254.1.1\n".repeat(3));
  assertEquals(conf({ reach: { dnsHost: [parseNameServer("127.1")!] } }, three), "nameserver 169.254.1.1\n");
  assertEquals(conf({ dns: [parseNameServer("192.0.2.9")!] }, three), "nameserver 192.0.2.9\n");
  const server = (text: string, zone = "") => ({ address: parseIp(text)!, zone });
  const dns = [server("192.0.2.1"), server("fe80::1"), server("fe80::2", "wg0")];
  assertEquals(plan({ net: "tap", dns }).reach.dnsForward, []);
  // The interface may be made later.
  assertEquals(plan({ net: "tap", dns }).network!.warnings.filter((warning) => warning.includes("--dns")), [
    'the name server fe80::2%wg0 of --dns cannot be reached before an interface "wg0" is made inside',
  ]);
  const servers = "nameserver 192.0.2.1\nnameserver fe80::1%tap0\nnameserver fe80::2%wg0\n";
  assertEquals(conf({ dns, search: [] }, host), servers + rest);
  assertEquals(plan({ net: "tap", dns: "none" }).files, []);
  assertEquals(plan({ net: "tap", unshare: ["user", "net"] }).files, []);
  // The C library searches the domain of its own name unless the file names another one.
  const named = { hostname: "web.corp.example" };
  assertEquals(conf({ hostname: "box" }, "", named), "nameserver 169.254.1.1\nsearch corp.example\n");
  assertEquals(conf({ hostname: "box.other.example" }, "", named), "nameserver 169.254.1.1\n");
  assertEquals(conf({ hostname: "box" }, "search a.example\n", named), "nameserver 169.254.1.1\nsearch a.example\n");
  assertEquals(conf({ hostname: "box", search: [] }, "", named), "nameserver 169.254.1.1\n");
});

test("descriptors are kept once, whatever the request repeats", () => {
  assertEquals(plan({ keepFds: [5, 3, 5] }).command.keepFds, [5, 3]);
});

test("requests that cannot work are refused as usage errors", () => {
  const expected: [unknown, string][] = [
    [{ command: [""] }, "its name is empty"],
    [{ command: ["a\0"] }, "an argument has a NUL inside"],
    [{ env: { "A=": "" } }, 'set the variable "A="'],
    [{ cwd: "" }, "the path is empty"],
    [{ cwd: "a\0" }, "the path has a NUL inside"],
    [{ killSignal: "NONE" }, 'use "NONE" for killSignal'],
    [{ keepFds: [2] }, "keep descriptor 2"],
    [{ hostname: "" }, 'set the host name ""'],
    [{ hostname: "é".repeat(33) }, "it has 1 to 64 bytes"],
    [{ hostname: "box", unshare: ["user"] }, "that needs a uts namespace"],
    [{ monotonic: 0.5 }, "0.5 is not a whole number of seconds"],
    [{ unshare: ["users"] }, 'use "users" for unshare'],
    [{ net: "tun" }, 'use "tun" for net'],
    [{ net: "host", unshare: ["net"] }, "choose one"],
    [{ map: { mode: "all" } }, 'use "all" for map.mode'],
    [{ map: { mode: "root" }, unshare: ["net"] }, "map ids without a user namespace"],
    [{ uid: 1 }, "run as user 1: that id is not mapped"],
    [{ gid: 1, map: { mode: "none" } }, "run as group 1: that id is not mapped"],
  ];
  for (const [options, message] of expected) {
    const found = refusal(options);
    assertEquals(found.includes(message), true, `${message} is not in: ${found}`);
  }
});
