// Names inside are looked up by penne's resolver and the command's own files alone, whoever would answer for the host.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ROOT, test } from "../lib/helpers.ts";
import { onHost } from "./host.ts";

const NEEDS = [
  "root",
  "user",
  "user namespaces",
  "package:bash",
  "package:iproute2",
  "package:libc-bin",
  "package:python3",
] as const;

/** A host where every daemon has another answer than the name server: see lab/daemons.py and cli/run/lab/dns.py. */
const DAEMONS = `
  N=/usr/local/lib/penne-ci/names; export LD_LIBRARY_PATH=$N/lib
  start() { rm -f /mnt/out; "$@" > /mnt/out 2>/mnt/err & until grep -qs ready /mnt/out; do kill -0 $!; sleep 0.01; done; }
  echo nameserver 127.0.0.1 > /mnt/conf; mv /mnt/conf /etc/resolv.conf
  start python3 ${ROOT}tests/cli/run/lab/dns.py 127.0.0.1
  printf '127.0.0.1 localhost\\n203.0.113.11 of.nscd.example\\n' > /mnt/hosts; mv /mnt/hosts /etc/hosts
  asks() { echo "hosts: $*" > /mnt/nss; mv /mnt/nss /etc/nsswitch.conf; }
  daemons() { start python3 -S ${ROOT}tests/views/lab/daemons.py; }
  nscd() { mkdir -p /run/nscd; grep -v -e persistent -e shared $N/nscd.conf > /mnt/nscd.conf
    $N/nscd -F -f /mnt/nscd.conf & until [ -S /run/nscd/socket ]; do kill -0 $!; sleep 0.01; done; }
  look() { for name in "$@"; do echo $name $(python3 -S /mnt/penne/tests/views/lab/look.py $name); done; }
  export -f look
`;
const LOOK = (names: string) => `bash -c "look ${names}"`;

/** Answers of the daemons, and of penne's resolver. */
const [NSCD, RESOLVED, AVAHI, PENNE] = ["203.0.113.11", "203.0.113.12", "203.0.113.13", "192.0.2.1"];

for (const user of [false, true]) {
  const who = user ? "a user" : "root";
  const needs = [...NEEDS, "tun", "name daemons"] as const;
  test(`what nscd would answer is not asked for inside, by ${who}`, needs, async () => {
    // The daemon reads /etc/hosts for itself; inside, the name is taken out of that file.
    const { code, stderr, stdout } = await onHost({
      net: true,
      user,
      prepare: `${DAEMONS} asks files dns; echo 127.0.0.1 localhost > /etc/hosts.own; nscd`,
      script: `look of.nscd.example; for options in "" --keep-views --net=host; do
        as $PENNE run $options -- bash -c 'mount --bind /etc/hosts.own /etc/hosts; look of.nscd.example'; done`,
    });
    assertEquals([code, stderr], [0, ""]);
    const answers = stdout.trim().split("\n").map((line) => line.split(" ")[1]);
    assertEquals(answers, [NSCD, PENNE, NSCD, NSCD]);
  });

  test(`systemd-resolved and Avahi are not asked inside, by ${who}`, needs, async () => {
    const { code, stderr, stdout } = await onHost({
      net: true,
      user,
      prepare: `${DAEMONS} asks files resolve '[!UNAVAIL=return]' mdns4_minimal '[NOTFOUND=return]' dns
        daemons; : > /mnt/asked; chmod 666 /mnt/asked`,
      script: `${LOOK("a.example")}; asks files mdns4_minimal '[NOTFOUND=return]' dns; ${LOOK("b.local")}
        asks files resolve '[!UNAVAIL=return]' mdns4_minimal '[NOTFOUND=return]' dns; : > /mnt/asked
        as $PENNE run -- ${LOOK("a.example b.local")}; cat /mnt/asked
        for options in --keep-views --net=host; do as $PENNE run $options -- ${LOOK("c.example")}; done`,
    });
    assertEquals([code, stderr], [0, ""]);
    assertEquals(stdout.trim().split("\n"), [
      `a.example ${RESOLVED}`,
      `b.local ${AVAHI}`,
      `a.example ${PENNE}`,
      `b.local ${PENNE}`,
      `c.example ${RESOLVED}`,
      `c.example ${RESOLVED}`,
    ]);
  });

  test(`daemons that start while the command of ${who} runs are not asked either`, needs, async () => {
    const { code, stderr, stdout } = await onHost({
      net: true,
      user,
      prepare: `${DAEMONS} asks files resolve '[!UNAVAIL=return]' dns; mkdir -m 777 /mnt/go`,
      script: `as $PENNE run -- bash -c 'look a.example; : > /mnt/go/1; until [ -e /mnt/go/2 ]; do sleep 0.02; done
          sleep 0.3; look b.example; : > /mnt/go/3; until [ -e /mnt/go/4 ]; do sleep 0.02; done
          sleep 0.3; look c.example; [ -e /mnt/asked ] || echo unasked' & p=$!
        until [ -e /mnt/go/1 ]; do sleep 0.02; done; sleep 0.3; daemons; : > /mnt/go/2
        until [ -e /mnt/go/3 ]; do sleep 0.02; done; daemons; : > /mnt/go/4; wait $p; look d.example`,
    });
    assertEquals([code, stderr], [0, ""]);
    const expected = [`a.example ${PENNE}`, `b.example ${PENNE}`, `c.example ${PENNE}`];
    assertEquals(stdout.trim().split("\n"), [
      ...expected,
      "unasked",
      `d.example ${RESOLVED}`,
    ]);
  });

  test(`the host name of ${who}'s command, and names of --add-host, lead where they should`, NEEDS, async (t) => {
    const hosts = "127.0.0.1 localhost box\\n192.0.2.7 db cache # two\\n192.0.2.8 x.box\\n";
    const inside = async (options: string, script: string, prepare = `printf '${hosts}' > /etc/hosts`) => {
      const { code, stdout, stderr } = await onHost({
        user,
        prepare: `${DAEMONS.split("\n").find((line) => line.includes("look()"))!}
          export -f look; rm -f /etc/hosts; ${prepare}; mkdir -m 777 /mnt/go`,
        script: `as $PENNE run --net=none ${options} -- bash -c '${script}'`,
      });
      assertEquals(code, 0, stderr);
      return [stdout, stderr];
    };
    await t.step("the name, with and without its domain", async () => {
      const [found] = await inside(
        "--hostname box.example",
        "look box.example box $(hostname) db x.box; cat /etc/hosts",
      );
      assertEquals(
        found,
        [
          "box.example 127.0.1.1",
          "box 127.0.1.1",
          "box.example 127.0.1.1",
          "db 192.0.2.7",
          "x.box 192.0.2.8",
          "127.0.1.1\tbox.example box",
          "127.0.0.1\tlocalhost",
          "192.0.2.7 db cache # two",
          "192.0.2.8 x.box",
          "",
        ].join("\n"),
      );
    });
    await t.step("--add-host, in place of the host's address", async () => {
      const options = "--add-host db:203.0.113.1 --add-host v6:2001:db8::1 --add-host V6:[2001:DB8::2] --keep-views";
      const [found] = await inside(`${options} --hostname b`, "look db cache; cat /etc/hosts; look b");
      assertEquals(
        found,
        [
          "db 203.0.113.1",
          "cache 192.0.2.7",
          "203.0.113.1\tdb",
          "2001:db8::1\tv6",
          "2001:db8::2\tV6",
          "127.0.0.1 localhost box",
          "192.0.2.7\tcache # two",
          "192.0.2.8 x.box",
          "b",
          "",
        ].join("\n"),
      );
    });
    const late = `look box later; : > /mnt/go/1; until look later | grep -q 192.0.2.9; do sleep 0.02; done; look box`;
    for (
      const [kind, prepare, change] of [
        ["a file that is replaced", `printf '${hosts}' > /etc/hosts`, "mv /mnt/go/n /etc/hosts"],
        ["a symbolic link", `printf '${hosts}' > /run/hosts; ln -s /run/hosts /etc/hosts`, "mv /mnt/go/n /run/hosts"],
        ["a symbolic link to a missing file", `ln -s /run/hosts /etc/hosts`, "mv /mnt/go/n /run/hosts"],
        ["missing until later", ":", "mv /mnt/go/n /etc/hosts"],
      ]
    ) {
      await t.step(`/etc/hosts is ${kind}`, async () => {
        const watch =
          `(until [ -e /mnt/go/1 ]; do sleep 0.02; done; sleep 0.3; echo 192.0.2.9 later > /mnt/go/n; ${change}) &`;
        const [found, said] = await inside(
          "--hostname box",
          late,
          `${prepare}; mkdir -m 777 /mnt/go; ${watch} mkdir() { :; }`,
        );
        assertEquals([found!.split("\n").at(-2), said], ["box 127.0.1.1", ""]);
      });
    }
  });
}

test("sudo finds the host name", [...NEEDS, "package:sudo"], async () => {
  const script = `as $PENNE run --net=none --unshare mnt,pid,ipc,uts,net --hostname box -- sudo -n true`;
  const { code, stderr } = await onHost({ script });
  assertEquals([code, stderr], [0, ""]);
  const { stderr: unknown } = await onHost({ script: script.replace("--hostname", "--keep-views --hostname") });
  assertStringIncludes(unknown, "unable to resolve host box");
});

test("--add-host refuses what no line of /etc/hosts can be", [...NEEDS], async (t) => {
  const cases: Record<string, RegExp> = {
    "name": /cannot use --add-host "name": it is not NAME:ADDRESS/,
    ":192.0.2.1": /it is not NAME:ADDRESS/,
    "a:": /it is not NAME:ADDRESS/,
    "a b:192.0.2.1": /cannot add the host "a b": that is no name of one/,
    "a:host-gateway": /cannot add the host a: "host-gateway" is not an IP address/,
    "a:fe80::1%lo": /is not an IP address/,
    "a:192.0.2.1 --unshare user,net": /cannot add hosts: that needs a mnt namespace of its own/,
  };
  for (const [value, message] of Object.entries(cases)) {
    await t.step(value, async () => {
      const [entry, ...more] = value.split(" --");
      const options = more.map((option) => `--${option}`).join(" ");
      const { stderr, code } = await onHost({
        script: `$PENNE run --net=none --add-host '${entry}' ${options} -- true || exit $?`,
      });
      assertMatch(stderr, message);
      assertEquals(code, 2);
    });
  }
});
