// What a command sees of the namespaces that it joins.

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { ROOT, test, TEST_USER } from "../lib/helpers.ts";
import { type Mount, onHost, SEE, type Seen, SUBMOUNTS } from "./host.ts";

const NEEDS = [
  "root",
  "user",
  "user namespaces",
  "package:bash",
  "package:iproute2",
  "package:python3",
  "package:util-linux",
] as const;

const seenIn = (stdout: string) =>
  stdout.trim().split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Seen);

/** Namespaces with a loopback interface called inside, no queue, and the host name other, and how they are entered. */
const PLACES: Record<string, { make: string; enter: string; library: string; end: string }> = {
  "a process in the host's mounts": {
    make: `as unshare $USERNS --net --ipc --uts --cgroup --pid --fork sh -c \\
        'ip link add inside type veth peer name peer0; hostname other; read pid rest < /proc/self/stat
          echo $pid > /mnt/go/made; exec sleep 100' 2>/dev/null & maker=$!
      until [ -s /mnt/go/made ]; do kill -0 $maker; sleep 0.02; done; target=$(cat /mnt/go/made)`,
    enter: "$target",
    library: "$target",
    end: "kill -9 $target; wait $maker || true",
  },
  "a kept set without mounts": {
    make:
      `as $PENNE keep --dir /run/sets --unshare $KEPT --hostname other place -- ip link add inside type veth peer name peer0`,
    enter: "--dir /run/sets place",
    library: "place /run/sets",
    end: "as $PENNE drop --dir /run/sets place",
  },
  "a kept set with mounts": {
    make:
      `as $PENNE keep --dir /run/sets --unshare all --hostname other place -- ip link add inside type veth peer name peer0`,
    enter: "--dir /run/sets place",
    library: "place /run/sets",
    end: "as $PENNE drop --dir /run/sets place",
  },
};

/** Enters the namespaces by the library, as the command lines of the test do. */
const PROGRAM = `import { enter } from "/mnt/penne/mod/mod.ts";
  const [target, directory] = Deno.args;
  const say = (line) => console.error(line);
  for (const command of [${JSON.stringify(SEE)}, ["getent", "hosts", "other"]]) {
    await (enter({ target, directory, command, onInfo: say, onWarning: say })).status;
  }`;

for (const user of [false, true]) {
  for (const [place, { make, enter, library, end }] of Object.entries(PLACES)) {
    test(`a command of ${user ? "a user" : "root"} sees the namespaces of ${place}`, NEEDS, async () => {
      const { stdout, stderr, code } = await onHost({
        user,
        prepare: `echo '${PROGRAM}' > /mnt/program.js; mkdir -m 777 /mnt/go; install -d ${
          user ? `-o ${TEST_USER}` : ""
        } /run/sets; USERNS=${user ? "-Ur" : ""}; KEPT=${user ? "user," : ""}net,ipc,uts,cgroup,pid`,
        script: `$SEE; ${make}; as $PENNE enter --log-level info ${enter} -- $SEE
          as $PENNE enter ${enter} -- getent hosts other
          as env DENO_DIR=/dev/shm/deno $DENO run -A --no-check /mnt/program.js ${library}; ${end}`,
      });
      assertEquals([code, stderr], [0, ""]);
      const [host, ...entered] = seenIn(stdout);
      assertEquals(entered.length, 2);
      for (const own of entered) {
        assertEquals(own.interfaces, ["inside", "lo", "peer0"]);
        assertEquals([own.queues, own.name], [[], "other"]);
        assertEquals([(own.cgroup as Mount).type, (own.cgroup as Mount).root], ["cgroup2", "/"]);
        assert(own.processes.length < 8 && own.processes[0] === 1, `${own.processes}`);
        for (const path of SUBMOUNTS) {
          if (path === "/sys/fs/cgroup") continue;
          assertEquals((own.mounts[path] as Mount).type, (host!.mounts[path] as Mount).type);
        }
      }
      const found = stdout.trim().split("\n").filter((line) => !line.startsWith("{"));
      assertEquals(found.map((line) => line.split(/\s+/)), [["127.0.1.1", "other"], ["127.0.1.1", "other"]]);
    });
  }
}

/** Files of a network namespace, and of the host: what ip-netns(8) makes of them. */
const FILES = `ip netns add blue; mkdir -p /etc/netns/blue/folder /etc/folder
  ip -n blue link add inside type veth peer name peer0
  for file in resolv.conf hosts nsswitch.conf; do cat /etc/$file > /etc/new; mv /etc/new /etc/$file; done
  echo nameserver 192.0.2.53 > /etc/netns/blue/resolv.conf; echo 192.0.2.7 of.blue > /etc/netns/blue/hosts
  echo 'hosts: files' > /etc/netns/blue/nsswitch.conf; echo > /etc/netns/blue/only-there
  echo blue > /etc/netns/blue/folder/inner; echo host > /etc/folder/inner; echo host > /etc/target
  ln -s target /etc/link; echo blue > /etc/netns/blue/link; echo target > /etc/netns/blue/target.txt
  ln -s target.txt /etc/netns/blue/pointer; echo host > /etc/pointer
  tell() { cd /etc; grep -H . resolv.conf hosts nsswitch.conf folder/inner link pointer; ls -d only-there 2>&1
    ls /sys/class/net; getent hosts of.blue; true; }; export -f tell
`;

test("enter netns:NAME shows what ip netns exec NAME shows, and the host's mounts below /sys", NEEDS, async (t) => {
  const { stdout, stderr, code } = await onHost({
    prepare: FILES,
    script: `ip netns exec blue bash -c tell 2>/dev/null; echo =; $PENNE enter netns:blue -- bash -c tell
      echo =; $PENNE enter /var/run/netns/blue -- bash -c tell; echo =; $PENNE enter --keep-views netns:blue -- bash -c tell
      echo =; bash -c tell; echo =; $SEE; $PENNE enter netns:blue -- $SEE; $PENNE enter --keep-views netns:blue -- $SEE`,
  });
  assertEquals([code, stderr], [0, ""]);
  const [ip, own, byPath, kept, host] = stdout.split("=\n");
  await t.step("the files", () => {
    assertEquals(own, ip);
    assertEquals(byPath, ip);
    assertEquals(kept, host);
    assertNotEquals(ip, host);
    assert(ip!.includes("folder/inner:blue\nlink:blue\npointer:target\n"), ip);
  });
  await t.step("the mounts", () => {
    const [outside, inside, same] = seenIn(stdout);
    assertEquals(inside!.interfaces, ["inside", "lo", "peer0"]);
    assertEquals(same!.interfaces, outside!.interfaces);
    assertEquals(same!.mnt, outside!.mnt);
    for (const path of SUBMOUNTS) {
      const [there, here] = [inside, outside].map((seen) => seen!.mounts[path] as Mount);
      assertEquals([there!.type, there!.options], [here!.type, here!.options]);
      // Shared on the host, so the copies follow it.
      assertEquals(there!.spread, here!.spread.map((word) => word.replace("shared", "master")));
    }
  });
});

test("a user sees the same with a name and files in a user namespace of its own", NEEDS, async () => {
  const { stdout, stderr, code } = await onHost({
    user: true,
    prepare: `mkdir -p /etc/netns/blue; echo 192.0.2.7 of.blue > /etc/netns/blue/hosts`,
    script: `export PENNE SEE; as unshare -Urm sh -c 'mount -t tmpfs none /run; mkdir /run/netns; : > /run/netns/blue
      unshare --net sh -c "ip link add inside type veth peer name peer0; mount --bind /proc/self/ns/net /run/netns/blue"
      $PENNE enter --log-level info netns:blue -- $SEE; $PENNE enter netns:blue -- cat /etc/hosts'`,
  });
  assertEquals([code, stderr], [0, ""]);
  const [own] = seenIn(stdout);
  assertEquals(own!.interfaces, ["inside", "lo", "peer0"]);
  for (const path of SUBMOUNTS) assertEquals(typeof own!.mounts[path], "object");
  assertEquals(stdout.trim().split("\n").at(-1), "192.0.2.7 of.blue");
});

test(
  "in enter netns:NAME, mounts of the host follow, and files stay when the host replaces its own",
  NEEDS,
  async () => {
    const { stdout, stderr, code } = await onHost({
      prepare: `${FILES} mkdir -m 777 /mnt/go /mnt/point; mkdir /sys/fs/cgroup/$CGROUP/below`,
      script: `$PENNE enter netns:blue -- bash -c 'mount -t tmpfs none /mnt/penne; : > /mnt/go/1
        until [ -e /mnt/go/2 ]; do sleep 0.02; done; sleep 0.3; cat /mnt/point/new /etc/resolv.conf /etc/hosts
        echo written > /etc/resolv.conf' & p=$!
      until [ -e /mnt/go/1 ]; do sleep 0.02; done; sleep 0.3; mount -t tmpfs none /mnt/point; echo seen > /mnt/point/new
      for file in resolv.conf hosts; do echo host > /etc/new; mv /etc/new /etc/$file; done
      : > /mnt/go/2; wait $p; cat /etc/netns/blue/resolv.conf; umount /mnt/point; rmdir /sys/fs/cgroup/$CGROUP/below`,
    });
    assertEquals([code, stderr], [0, ""]);
    assertEquals(stdout, "seen\nnameserver 192.0.2.53\n192.0.2.7 of.blue\nwritten\n");
  },
);

test(
  "a daemon of the host is not asked where the files of a namespace decide",
  [...NEEDS, "name daemons"],
  async () => {
    const { stdout, stderr, code } = await onHost({
      prepare: `${FILES} echo 'hosts: resolve [!UNAVAIL=return] files' > /etc/netns/blue/nsswitch.conf
      export LD_LIBRARY_PATH=/usr/local/lib/penne-ci/names/lib
      python3 -S ${ROOT}tests/views/lab/daemons.py > /mnt/out & p=$!
      until grep -qs ready /mnt/out; do sleep 0.02; done`,
      script: `ip netns exec blue getent hosts of.blue 2>/dev/null; $PENNE enter netns:blue -- getent hosts of.blue
      $PENNE enter netns:blue --add-host of.blue:192.0.2.9 --add-host b:192.0.2.8 -- bash -c 'cat /etc/hosts'
      kill $p; wait $p || true`,
    });
    assertEquals([code, stderr], [0, ""]);
    assertEquals(stdout.split(/[ \t\n]+/).filter((word) => word), [
      ...["203.0.113.12", "of.blue", "192.0.2.7", "of.blue"],
      ...["192.0.2.9", "of.blue", "192.0.2.8", "b"],
    ]);
  },
);

test("the library shows a command the namespaces that it joins", NEEDS, async () => {
  const request = JSON.stringify({ target: "netns:blue", command: SEE });
  const program = `import { enter } from "/mnt/penne/mod/mod.ts";
    for (const keepViews of [false, true]) await (enter({ ...${request}, keepViews })).status;`;
  const { stdout, stderr, code } = await onHost({
    prepare: `${FILES} echo '${program}' > /mnt/program.js`,
    script: "$SEE; env DENO_DIR=/dev/shm/deno $DENO run -A --no-check /mnt/program.js",
  });
  assertEquals([code, stderr], [0, ""]);
  const [host, own, kept] = seenIn(stdout);
  assertEquals([own!.interfaces, kept!.interfaces], [["inside", "lo", "peer0"], host!.interfaces]);
});

test("a killed penne leaves no mount, at whatever moment", NEEDS, async () => {
  const { stdout, stderr, code } = await onHost({
    prepare: FILES,
    script: `for i in $(seq 0 12); do
        $PENNE enter netns:blue -- sleep 100 & p=$!; sleep 0.0$((i * 7)); kill -9 $p; wait $p 2>/dev/null || true
        $PENNE run --net=none --hostname box -- sleep 100 & p=$!; sleep 0.0$((i * 7)); kill -9 $p; wait $p 2>/dev/null || true
      done; sleep 0.5; mounts | diff /mnt/before - && echo same`,
  });
  assertEquals([code, stderr.replaceAll(/.*Killed.*\n/g, ""), stdout], [0, "", "same\n"]);
});
