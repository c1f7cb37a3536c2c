// The resolver that penne gives a namespace is asked by commands that enter it, if it has no file of its own.

import { assertEquals } from "@std/assert";
import { ROOT, test } from "../lib/helpers.ts";
import { onHost } from "./host.ts";

const NEEDS = [
  "root",
  "user",
  "user namespaces",
  "package:bash",
  "package:iproute2",
  "package:python3",
  "package:util-linux",
  "tun",
] as const;

/** A host whose name server answers 192.0.2.1, with functions: attach begins to serve, leave ends that. */
const SERVER = `
  printf 'nameserver 127.0.0.1\\nsearch host.example\\noptions ndots:1\\n' > /mnt/conf; mv /mnt/conf /etc/resolv.conf
  printf 'hosts: files dns\\n' > /mnt/nss; mv /mnt/nss /etc/nsswitch.conf
  python3 ${ROOT}tests/cli/run/lab/dns.py 127.0.0.1 > /mnt/out & until grep -qs ready /mnt/out; do sleep 0.02; done
  install -d -m 777 /mnt/go
  attach() { as $PENNE attach --background --pid-file /mnt/go/pid "$@"; }
  leave() { pid=$(cat /mnt/go/pid); kill -$1 $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done; }
  conf() { $PENNE enter "$@" netns:blue -- cat /etc/resolv.conf | tr '\\n' ','; echo; }
`;

const HOST = "nameserver 127.0.0.1,search host.example,options ndots:1,";
const OWN = "nameserver 192.0.2.53,search host.example,options ndots:1,";

test("enter netns:NAME asks the resolver of the penne that serves the namespace", NEEDS, async (t) => {
  const run = async (script: string) => {
    const { stdout, stderr, code } = await onHost({
      net: true,
      prepare: `${SERVER} ip netns add blue`,
      script,
    });
    assertEquals([code, stderr], [0, ""]);
    return stdout.trim().split("\n");
  };
  await t.step("while it does", async () => {
    const said = await run(`conf; attach --dns-forward 192.0.2.53 blue; conf; conf --keep-views
      $PENNE enter netns:blue -- getent hosts some.example; $PENNE enter --type net fd:3 3</run/netns/blue -- head -1 /etc/resolv.conf
      leave TERM; conf; attach --dns-forward 192.0.2.53 blue; conf; leave KILL; conf`);
    said[3] = said[3]!.replace(/\s+/, " ");
    const named = ["192.0.2.1 some.example", "nameserver 192.0.2.53"];
    assertEquals(said, [HOST, OWN, HOST, ...named, HOST, OWN, HOST]);
  });
  await t.step("by either family, and not if it gives none", async () => {
    const said = await run(
      `attach --dns-forward 192.0.2.53 --dns-forward fe80::53 --ns-ifname eth7 blue; conf; leave TERM
      attach blue; conf; leave TERM`,
    );
    assertEquals(said, [OWN.replace(",", ",nameserver fe80::53%eth7,"), HOST]);
  });
  await t.step("but the file of /etc/netns/NAME counts", async () => {
    const said = await run(`attach --dns-forward 192.0.2.53 blue; mkdir -p /etc/netns/blue
      echo nameserver 192.0.2.7 > /etc/netns/blue/resolv.conf; conf; rm /etc/netns/blue/resolv.conf; conf; leave TERM`);
    assertEquals(said, ["nameserver 192.0.2.7,", OWN]);
  });
  await t.step("a directory and a file do not take each other's place", async () => {
    const { stdout, stderr, code } = await onHost({
      prepare:
        `ip netns add blue; mkdir -p /etc/netns/blue/resolv.conf; echo host > /mnt/conf; mv /mnt/conf /etc/resolv.conf`,
      script: "$PENNE enter netns:blue -- cat /etc/resolv.conf",
    });
    const why = "penne: warning: the command has no /etc/resolv.conf of its own: only one of the two is a directory\n";
    assertEquals([code, stdout, stderr], [0, "host\n", why]);
  });
  await t.step("what the host changes meanwhile is followed", async () => {
    const said = await run(`attach --dns-forward 192.0.2.53 blue
      $PENNE enter netns:blue -- bash -c ': > /mnt/go/1; until grep -q new.example /etc/resolv.conf && grep -q 192 /etc/resolv.conf; do sleep 0.02; done
        cat /etc/resolv.conf' & p=$!; until [ -e /mnt/go/1 ]; do sleep 0.02; done; sleep 0.3
      printf 'nameserver 127.0.0.2\\nsearch new.example\\n' > /etc/new; mv /etc/new /etc/resolv.conf; wait $p; leave TERM`);
    assertEquals(said, ["nameserver 192.0.2.53", "search new.example"]);
  });
  await t.step("an interface with another alias says nothing, nor one that is down", async () => {
    const said = await run(`alias() { ip -n blue link set lo alias "$1" $2; conf; }
      alias 'penne: resolver' up; alias 'penne: resolver x' up; alias 'penne: resolver 127.0.0.1' up; alias 'penne: resolver 192.0.2.53 ::1 ::2' up
      alias 'penne: resolver 192.0.2.53\\nsearch evil.example' up; alias "$(printf '\\xff')" up
      alias 'penne: resolver 192.0.2.53' down; alias 'penne: resolver 192.0.2.53' up`);
    assertEquals(said, [...Array(7).fill(HOST), OWN]);
  });
});

test("the same is true of a user's namespaces, by its process", NEEDS, async () => {
  const { stdout, stderr, code } = await onHost({
    net: true,
    user: true,
    prepare: SERVER,
    script:
      `as unshare -Urn sleep 100 & until pgrep -x sleep > /mnt/go/target; do sleep 0.02; done; target=$(cat /mnt/go/target)
      until [ "$(readlink /proc/$target/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
      attach --dns-forward 192.0.2.53 $target
      as $PENNE enter $target -- bash -c 'cat /etc/resolv.conf; getent hosts some.example'
      leave TERM; as $PENNE enter $target -- head -1 /etc/resolv.conf`,
  });
  assertEquals([code, stderr], [0, ""]);
  const words = stdout.trim().split(/\s+/);
  assertEquals(words.slice(0, 6), ["nameserver", "192.0.2.53", "search", "host.example", "options", "ndots:1"]);
  assertEquals(words.slice(6), ["192.0.2.1", "some.example", "nameserver", "127.0.0.1"]);
});

test("where that resolver is asked, no daemon of the host is", [...NEEDS, "name daemons"], async () => {
  const { stdout, stderr, code } = await onHost({
    net: true,
    prepare: `${SERVER} export LD_LIBRARY_PATH=/usr/local/lib/penne-ci/names/lib; ip netns add blue
      echo 'hosts: files resolve [!UNAVAIL=return] dns' > /mnt/nss; mv /mnt/nss /etc/nsswitch.conf
      python3 -S ${ROOT}tests/views/lab/daemons.py > /mnt/daemons & until grep -qs ready /mnt/daemons; do sleep 0.02; done
      attach --dns-forward 192.0.2.53 blue`,
    script:
      `for options in "" --keep-views; do $PENNE enter $options netns:blue -- getent hosts some.example; done; leave TERM`,
  });
  assertEquals([code, stderr], [0, ""]);
  assertEquals(stdout.trim().split("\n").map((line) => line.split(" ")[0]), ["192.0.2.1", "203.0.113.12"]);
});
