// Ports of the host that lead to the command of `penne run`: errors, what is left behind, and the end.

import "../../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { asUser, penne, test, until } from "../../lib/helpers.ts";
import { must, NetLab } from "../../lib/netlab.ts";

const NEEDS = [
  ...["root", "user", "tun", "package:iproute2", "package:procps"] as const,
  ...["package:python3", "package:util-linux"] as const,
];

/** Ports that are listened on in a namespace. */
async function listening(lab: NetLab): Promise<string[]> {
  const lines = (await must(lab.in(lab.host, ["ss", "-Htuln"]))).split("\n").filter(Boolean);
  return lines.map((line) => line.split(/\s+/)[4]!).sort();
}

test("a port that cannot be opened is an error that says why, and nothing is open then", NEEDS, async (t) => {
  await using lab = await NetLab.open();
  await lab.usual();
  const holder = lab.start(lab.in(lab.host, ["python3", "-m", "http.server", "8090"]));
  await until("the server listens", () => /:1F9A /.test(Deno.readTextFileSync(`/proc/${holder.child.pid}/net/tcp`)));
  const before = await listening(lab);
  const taken = `penne: cannot listen on TCP port 8090: Address already in use (EADDRINUSE)\n`;
  const cases: readonly [string[], number, RegExp | string][] = [
    [["-t", "8088", "-t", "8090"], 125, taken],
    [["-u", "8088", "-t", "8089-8091"], 125, taken],
    [
      ["-t", "8088", "-t", "192.0.2.77/8089"],
      125,
      "penne: cannot listen on TCP port 8089 of 192.0.2.77: Cannot assign requested address (EADDRNOTAVAIL)\n" +
      "hint: no interface has that address; --freebind listens on it all the same\n",
    ],
    [
      ["-u", "8088", "-u", "%nope/8089"],
      125,
      "penne: cannot listen on UDP port 8089 on nope: No such device (ENODEV)\n",
    ],
    [["-t", "8088", "-t", "8080:80:81"], 2, /--tcp-ports "8080:80:81": it is not a list of ports\nhint: /],
    [["-t", "7088", "-t", "8080-8090,8090"], 2, /--tcp-ports "8080-8090,8090": \*:8090 and \*:8080-8090 overlap\n$/],
    [["-4", "-t", "[::1]/8088"], 2, /--tcp-ports "\[::1\]\/8088": IPv6 is off\n$/],
    [["-t", "8088:192.0.2.5"], 2, /a target of IPv4 needs an address of IPv4 to listen on, as in 0\.0\.0\.0\/8088\n$/],
    [["--no-splice", "--splice-only", "-t", "8088"], 2, "penne: cannot use --splice-only with --no-splice\n"],
    [["--no-splice", "--host-lo-to-ns-lo"], 2, "penne: cannot use --host-lo-to-ns-lo with --no-splice\n"],
    [["-T", "127.0.0.1/80"], 2, /--tcp-ns "127\.0\.0\.1\/80": a port inside is on loopback, of all addresses\n$/],
    [["-U", "80-90,85"], 2, /--udp-ns "80-90,85": \*%lo:85 and \*%lo:80-90 overlap\n$/],
    [["--net=none", "-t", "8088"], 2, "penne: cannot use --tcp-ports without a network\nhint: --net=tap sets one up\n"],
  ];
  for (const [args, code, message] of cases) {
    await t.step(args.join(" "), async () => {
      const [program, ...rest] = lab.in(lab.host, asUser([penne(), "run", ...args, "--", "true"]));
      const { code: got, stderr } = await new Deno.Command(program!, { args: rest, stdin: "null" }).output();
      const text = new TextDecoder().decode(stderr);
      assertEquals(got, code, text);
      if (typeof message === "string") assertEquals(text, message);
      else assertMatch(text, message);
      assertEquals(await listening(lab), before);
    });
  }
  await t.step("a privileged port, as a user", async () => {
    const [program, ...rest] = lab.in(lab.host, asUser([penne(), "run", "-t", "80", "--", "true"]));
    const { code, stderr } = await new Deno.Command(program!, { args: rest, stdin: "null" }).output();
    assertEquals(code, 125);
    assertEquals(
      new TextDecoder().decode(stderr),
      "penne: cannot listen on TCP port 80: Permission denied (EACCES)\n" +
        "hint: net.ipv4.ip_unprivileged_port_start is 1024, so that this port is for root; " +
        "as root, run: sysctl net.ipv4.ip_unprivileged_port_start=80\n",
    );
  });
});

test("penne attach takes ports for one namespace, and auto ports only where its end is known", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const attach = async (...args: string[]) => {
    const [program, ...rest] = lab.in(lab.host, [penne(), "attach", ...args]);
    const { code, stderr } = await new Deno.Command(program!, { args: rest, stdin: "null" }).output();
    return [code, new TextDecoder().decode(stderr).split("\n")[0]];
  };
  assertEquals(await attach("-t", "8088", "a", "b"), [
    2,
    "penne: cannot forward ports to more than one namespace: run one penne attach for each",
  ]);
  const refused = [
    2,
    "penne: cannot use auto ports with --no-quit or fd:N: looking for listeners would keep the namespace alive",
  ];
  assertEquals(await attach("-t", "auto", "fd:0"), refused);
  assertEquals(await attach("-t", "auto", "--no-quit", "a"), refused);
  const pinned = "with --no-quit or fd:N: sockets inside would keep the namespace alive";
  assertEquals(await attach("-T", "8088", "fd:0"), [
    2,
    "penne: cannot use --tcp-ns or --udp-ns with --no-quit or fd:N: ports inside would keep the namespace alive",
  ]);
  for (const option of ["--splice-only", "--host-lo-to-ns-lo"]) {
    assertEquals(await attach("-t", "8088", option, "fd:0"), [2, `penne: cannot use ${option} ${pinned}`]);
  }
});

for (const ports of ["auto", "8099"]) {
  test(`penne attach -t ${ports} ends when the name of its namespace goes`, NEEDS, () => endsWithName(ports));
}

async function endsWithName(ports: string): Promise<void> {
  await using lab = await NetLab.open();
  await lab.usual();
  const name = `${lab.host}auto`;
  await must(["ip", "netns", "add", name]);
  try {
    const argv = [penne(), "attach", "--ready-fd", "1", "-t", ports, name];
    const [program, ...args] = lab.in(lab.host, argv);
    const child = new Deno.Command(program!, { args, stdin: "null", stdout: "piped", stderr: "inherit" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await reader.cancel();
    await must(["ip", "netns", "del", name]);
    assertEquals((await child.status).code, 0);
  } finally {
    await new Deno.Command("ip", { args: ["netns", "del", name], stderr: "null" }).output();
  }
}

test("all ports are opened with the limit on open files raised, and the command has its caller's", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const run = async (limit: string) => {
    const argv = ["prlimit", `--nofile=${limit}`, penne(), "run", "-t", "2000-5999", "--", "sh", "-c", "ulimit -n"];
    const [program, ...args] = lab.in(lab.host, asUser(argv));
    const { code, stdout, stderr } = await new Deno.Command(program!, { args, stdin: "null" }).output();
    return [code, new TextDecoder().decode(stdout), new TextDecoder().decode(stderr)];
  };
  assertEquals(await run("1024:8192"), [0, "1024\n", ""]);
  assertEquals(await run("1024:2048"), [
    125,
    "",
    "penne: cannot listen on TCP port 3920: Too many open files (EMFILE)\n" +
    "hint: each port takes an open file, and the hard limit is 2048 (ulimit -Hn): name fewer ports, or raise it\n",
  ]);
  assertEquals(await listening(lab), []);
});

test("who has a port is named to those who may see it", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const holder = lab.start(lab.in(lab.host, ["python3", "-m", "http.server", "8090"]));
  await until("the server listens", () => /:1F9A /.test(Deno.readTextFileSync(`/proc/${holder.child.pid}/net/tcp`)));
  const [program, ...args] = lab.in(lab.host, [penne(), "run", "-t", "8090", "--", "true"]);
  const { stderr } = await new Deno.Command(program!, { args, stdin: "null" }).output();
  assertMatch(new TextDecoder().decode(stderr), /\nhint: python3 \(process \d+\) has the port\n$/);
});

test("ports can be opened again at once, however penne has ended", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const before = await listening(lab);
  for (let i = 0; i < 20; i++) {
    const [program, ...args] = lab.in(
      lab.host,
      asUser([penne(), "run", "--ready-fd", "1", "-t", "8090-8094", "-u", "8090", "--", "sleep", "1000"]),
    );
    const child = new Deno.Command(program!, { args, stdin: "null", stdout: "piped", stderr: "inherit" }).spawn();
    const reader = child.stdout.getReader();
    const { done } = await reader.read();
    await reader.cancel();
    assert(!done, `run ${i} is not ready`);
    assertEquals((await listening(lab)).length, before.length + 6);
    child.kill(i % 2 ? "SIGKILL" : "SIGTERM");
    await child.status;
  }
  for (let i = 0; i < 100 && (await listening(lab)).join() !== before.join(); i++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assertEquals(await listening(lab), before);
});
