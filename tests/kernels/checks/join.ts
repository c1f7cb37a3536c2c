// Checks of the commands that use namespaces which exist already: enter, attach and wait.

import type { Check } from "../check.ts";
import { fails, works } from "./outcomes.ts";

/** A process in namespaces of its own, made without penne; its pid is $target. */
const TARGET = `user=; [ $EUID = 0 ] || user='--user --map-root-user'
unshare $user --mount --net --uts --ipc sh -c 'hostname target; ip link set lo up; touch ready; cd /usr; exec sleep 1000' & target=$!
trap 'kill $target 2>/dev/null || true' EXIT; until [ -e ready ]; do sleep 0.1; done
`;
/** Runs a command in the namespaces of $target, without penne. */
const INSIDE =
  `inside() { if [ $EUID = 0 ]; then nsenter -t $target -n "$@"; else nsenter -t $target -U -n --preserve-credentials "$@"; fi; }
`;
/** Waits until there is an address inside. */
const UP = `until inside ip -br addr show eth0 2>/dev/null | grep -q 192.0.2.2; do sleep 0.2; done
`;

const enter: readonly Omit<Check, "command">[] = [
  {
    title: "all namespaces of a process that differ",
    script: `${TARGET}penne enter $target -- sh -c 'hostname; id -u; ip -br link; readlink /proc/self/ns/mnt'
readlink /proc/$target/ns/mnt`,
    outcomes: works(/^target\n0\nlo .*\n(mnt:\[\d+\])\n\1\n$/),
    core: true,
  },
  {
    title: "only the network namespace of a process",
    script: `${TARGET}penne enter --type net,user $target -- sh -c 'hostname; readlink /proc/self/ns/net'
readlink /proc/$target/ns/net`,
    outcomes: works(/^guest\n(net:\[\d+\])\n\1\n$/),
  },
  {
    title: "a pid namespace",
    script: `penne run --net=none --background --pid-file pid --hostname box -- sh -c 'exec sleep 4322'
trap 'kill $(cat pid)' EXIT; until target=$(pgrep -x -f 'sleep 4322'); do sleep 0.1; done
penne enter "$target" -- sh -c 'hostname; mount -t proc proc /proc; ps -o comm= 2 | cat; cat /proc/2/comm'`,
    outcomes: works(/^box\n(sleep\n)+$/),
  },
  {
    title: "paths of namespaces",
    script:
      `${TARGET}paths=/proc/$target/ns/uts,/proc/$target/ns/net; [ $EUID = 0 ] || paths=/proc/$target/ns/user,$paths
penne enter $paths -- hostname`,
    outcomes: works("target\n"),
  },
  {
    title: "a descriptor of a namespace",
    script: `${TARGET}[ $EUID = 0 ] || exec 4</proc/$target/ns/user
penne enter fd:3 -- sh -c 'ip -br link | wc -l; hostname' 3</proc/$target/ns/uts`,
    outcomes: [
      {
        who: "user",
        code: 125,
        sees: ['cannot join the uts namespace of "fd:3": Operation not permitted (EPERM)', "join that too"],
      },
      { sees: [/^\d+\ntarget\n$/] },
    ],
  },
  {
    title: "a pidfd",
    script: `${TARGET}perl -e 'use Fcntl; $fd = syscall(434, $ARGV[0] + 0, 0); die $! if $fd < 0;
open($pidfd, "<&=$fd"); fcntl($pidfd, F_SETFD, 0); exec "penne", "enter", "fd:$fd", "--", "hostname"' $target`,
    outcomes: works("target\n"),
  },
  {
    title: "a name of ip netns",
    who: "root",
    script: `ip netns add blue; trap 'ip netns del blue' EXIT
penne enter netns:blue -- sh -c 'ip -br link | wc -l; readlink /proc/self/ns/net' >seen
ip netns exec blue readlink /proc/self/ns/net; cat seen`,
    outcomes: works(/^(net:\[\d+\])\n1\n\1\n$/),
  },
  {
    title: "a process that does not exist, or has ended",
    script: `true & pid=$!; wait $pid; penne enter $pid -- true || echo $?; penne enter 4194303 -- true || echo $?`,
    outcomes: works(/cannot .*\n(.*\n)*125\n/),
  },
  {
    title: "the root directory, environment and cgroups of the process",
    script: `${TARGET}cat /proc/$target/cgroup
penne enter --root --cgroup --target-env --env X=1 $target -- sh -c 'cat /proc/self/cgroup; echo "$X $USER"'`,
    outcomes: [{ who: "user", sees: [/^(.*\n)+1 penne-test\n$/] }, { sees: [/^(0::.*)\n\1\n1 root\n$/] }],
  },
  {
    title: "one's own ids in a user namespace that is joined",
    script: `unshare --user sleep 1000 & target=$!; trap 'kill $target' EXIT
until [ "$(readlink /proc/$target/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.1; done
penne enter --preserve-credentials $target -- id -u`,
    outcomes: works("65534\n"),
  },
  {
    title: "a time namespace",
    script: `user=; [ $EUID = 0 ] || user='--user --map-root-user'
unshare $user --time --boottime 2000000 --fork --kill-child sh -c 'exec sleep 4323' & trap "kill $!" EXIT
until target=$(pgrep -u $EUID -x -f 'sleep 4323'); do sleep 0.1; done
penne enter --type time,user $target -- cat /proc/uptime`,
    outcomes: works(/^20\d{5}\./m),
  },
  {
    title: "all descendants are killed when penne is",
    script: `${TARGET}penne enter $target -- sh -c 'sleep 4324 & sleep 4324' & pid=$!
until pgrep -x -f 'sleep 4324' >/dev/null; do sleep 0.1; done
kill -KILL $pid; while pgrep -x -f 'sleep 4324' >/dev/null; do sleep 0.1; done; echo gone`,
    outcomes: works("gone\n"),
  },
];

const attach: readonly Omit<Check, "command">[] = [
  {
    title: "the namespace of a process, until it ends",
    script: `${TARGET}${INSIDE}penne attach $target & penne=$!; ${UP}inside ip -br addr show eth0
kill $target; wait $penne; echo "ended with $?"`,
    outcomes: works(/^eth0 .*192\.0\.2\.2\/24.*2001:db8::2\/64/m, "ended with 0"),
    core: true,
  },
  {
    title: "TCP through the network",
    script: `${TARGET}${INSIDE}socat TCP4-LISTEN:8010,reuseaddr,bind=127.0.0.1 SYSTEM:'echo served; cat' & server=$!
until ss -tln | grep -q :8010; do sleep 0.1; done
penne attach --background --pid-file pid --map-host-loopback 10.0.2.2 $target
head -c 1000000 /dev/urandom >data; inside socat -t 30 - TCP4:10.0.2.2:8010 <data >answer
tail -c +8 answer | cmp data && head -c 7 answer; kill "$(cat pid)"`,
    outcomes: works("served\n"),
  },
  {
    title: "a path and a descriptor, both from one process",
    script:
      `${TARGET}${INSIDE}if [ $EUID = 0 ]; then unshare --net sleep 1000 & else unshare -rn sleep 1000 & fi; other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
penne attach --background --pid-file pid /proc/$target/ns/net fd:3 3</proc/$other/ns/net
inside ip -br addr show eth0; target=$other; inside ip -br addr show eth0; kill "$(cat pid)" $other`,
    outcomes: [{ sees: [/^(eth0 .*192\.0\.2\.2\/24.*\n){2}/] }],
  },
  {
    title: "names of ip netns, until they are removed",
    who: "root",
    script: `ip netns add blue; ip netns add green; penne attach --ready-fd 3 blue green 3>ready & penne=$!
until [ -s ready ]; do sleep 0.2; done
for name in blue green; do ip netns exec $name ip -br addr show eth0 | grep 192.0.2.2; done
ip netns del blue; ip netns del green; wait $penne; echo "ended with $?"`,
    outcomes: works("ended with 0"),
  },
  {
    title: "--no-config-net, and a chosen name and MTU",
    script: `${TARGET}${INSIDE}penne attach --background --pid-file pid --no-config-net -I tap5 -m 1500 $target
inside ip link show tap5; kill "$(cat pid)"`,
    outcomes: works("mtu 1500", "state DOWN"),
  },
  {
    title: "the interface goes when penne is killed",
    script: `${TARGET}${INSIDE}penne attach $target & penne=$!; ${UP}kill -KILL $penne
while inside ip link show eth0 2>/dev/null; do sleep 0.1; done; echo gone`,
    outcomes: works("gone\n"),
  },
  {
    title: "the namespace that penne itself is in",
    script: "penne attach $$",
    outcomes: fails(1, "cannot "),
  },
  {
    title: "a target that does not exist",
    script: "penne attach no-such-name || echo $?; penne attach 4194303 || echo $?",
    outcomes: works(/cannot .*\n(hint: .*\n)*1\n.*cannot .*\n(hint: .*\n)*1\n$/),
  },
];

/** A namespace without a process or name, which descriptor 3 of this shell holds until it is closed. */
const HELD =
  `exec 3< <(:); if [ $EUID = 0 ]; then unshare --net sleep 1000 & else unshare -rn sleep 1000 & fi; holder=$!
until [ "$(readlink /proc/$holder/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
`;

const wait: readonly Omit<Check, "command">[] = [
  {
    title: "a process is gone",
    script: "sleep 3 & penne wait $! --for gone; echo gone; penne wait $$ --for present && echo present",
    outcomes: works("gone\npresent\n"),
    core: true,
  },
  {
    title: "a time limit",
    script: "penne wait $$ --for gone --timeout 0.5",
    outcomes: fails(124),
  },
  {
    title: "a hook",
    script: "penne wait $$ --for present -- sh -c 'echo hook; exit 5'",
    outcomes: fails(5, "hook\n"),
  },
  {
    title: "readiness before the wait",
    script: `sleep 1000 & pid=$!; penne wait $pid --for gone --ready-fd 4 4>ready & penne=$!
until [ -s ready ]; do sleep 0.1; done; kill $pid; wait $penne; echo "ended with $?"`,
    outcomes: works("ended with 0"),
  },
  {
    title: "names of ip netns come and go",
    who: "root",
    script: `(sleep 3; ip netns add blue) & penne wait blue --for present; ip netns list
(sleep 3; ip netns del blue) & penne wait blue --for gone; ip netns list; echo end`,
    outcomes: works(/^blue\nend\n$/),
  },
  {
    title: "a path that does not exist is gone",
    script: `penne wait ./file --for gone && echo "gone"`,
    outcomes: works("gone\n"),
  },
  {
    title: "a namespace of a descriptor is gone",
    script: `${HELD}penne wait fd:4 --for gone --ready-fd 5 4</proc/$holder/ns/net 5>ready & penne=$!
for i in $(seq 300); do [ -s ready ] && break; kill -0 $penne 2>/dev/null || break; sleep 0.2; done
kill $holder; wait $penne; echo "ended with $?"`,
    outcomes: works("ended with 0"),
  },
  {
    title: "a target that cannot be",
    script: "penne wait fd:77 --for gone",
    outcomes: fails(1, "cannot "),
  },
];

/** Checks of enter, attach and wait. */
export const JOIN: readonly Check[] = [
  ...enter.map((check) => ({ command: "enter", ...check }) as const),
  ...attach.map((check) => ({ command: "attach", ...check }) as const),
  ...wait.map((check) => ({ command: "wait", ...check }) as const),
];
