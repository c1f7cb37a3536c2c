// Checks of the bootstrap, the self-test, and of what all commands have.

import type { Check } from "../check.ts";
import { fails, works } from "./outcomes.ts";

/** Flags of clone(2). */
const [NEWUTS, NEWUSER, NEWNET] = [0x04000000, 0x10000000, 0x40000000];
const flags = (...all: number[]) => `flags=${all.reduce((sum, flag) => sum + flag, 0).toString(16)}`;

const nsexec: readonly Omit<Check, "command">[] = [
  ...(["seed", "1.1", "1.2"] as const).map((dialect): Omit<Check, "command"> => ({
    title: `new namespaces, as runc ${dialect === "seed" ? "1.0" : dialect} asks for them`,
    script: `user=; flags=${flags(NEWUTS, NEWNET)}; [ $EUID = 0 ] || flags=${flags(NEWUTS, NEWNET, NEWUSER)}
[ $EUID = 0 ] || user="uid=0 $EUID 1\\n"; [ $EUID = 0 ] || gid="gid=0 $EUID 1\\n"
readlink /proc/self/ns/net
perl /job/bootstrap.pl ${dialect} "$flags" \${user:+"$user" "$gid" rootless=1} -- sh -c 'readlink /proc/self/ns/net; id -u'`,
    outcomes: [{ sees: [/^(net:\[\d+\])\n(?:.*\n)*(?!\1)net:\[\d+\]\n0\n/m, "stage 0 exit 0\n", "stage 2 exit 0\n"] }],
    core: dialect === "1.2",
  })),
  {
    title: "namespaces that exist",
    script: `user=; [ $EUID = 0 ] || user=--map-root-user
unshare $user --net --uts sh -c 'hostname joined; touch ready; exec sleep 1000' & target=$!; trap 'kill $target' EXIT
until [ -e ready ]; do sleep 0.1; done
paths=net:/proc/$target/ns/net,uts:/proc/$target/ns/uts; [ $EUID = 0 ] || paths=user:/proc/$target/ns/user,$paths
perl /job/bootstrap.pl 1.2 "paths=$paths" -- hostname`,
    outcomes: works("joined\n", "stage 2 exit 0"),
  },
  {
    title: "a time namespace with an offset",
    who: "root",
    script: "perl /job/bootstrap.pl 1.2 flags=80 'time=boottime 4000000 0\\n' -- cat /proc/uptime",
    outcomes: works(/^40\d{5}\./m),
  },
  {
    title: "a message that is no message",
    script: "perl /job/bootstrap.pl 1.2 raw=10000000ffff01000000000000000000 -- true",
    outcomes: works("stage 0 exit 1\n"),
  },
  {
    title: "a namespace that does not exist",
    script: "perl /job/bootstrap.pl 1.2 paths=net:/proc/99999999/ns/net -- true",
    outcomes: works("stage 0 exit 1\n"),
  },
  {
    title: "without a bootstrap it becomes the command",
    script: "penne nsexec -- sh -c 'echo command; exit 7'",
    outcomes: fails(7, "command\n"),
  },
  { title: "neither a bootstrap nor a command", script: "penne nsexec", outcomes: fails(2, "neither") },
];

const selfTest: readonly Omit<Check, "command">[] = [
  { title: "nothing is wrong with the runtime", script: "penne __self-test", outcomes: [{ not: [/./] }], core: true },
];

const all: readonly Omit<Check, "command">[] = [
  {
    title: "version and help",
    script: "penne --version; penne run --help; penne --help",
    outcomes: works("penne ", "Usage: penne run"),
  },
  { title: "a command that there is not", script: "penne rum", outcomes: fails(2, "hint: did you mean run?") },
  {
    title: "a log file as JSON",
    script: "penne run --net=none --log-format json --log-file log -- no-such-program || cat log",
    outcomes: works(/^\{"/m),
  },
  {
    // A process is seen by others before its execve(2) has ended.
    title: "twenty starts, one after the other",
    script: 'for i in $(seq 20); do penne run --net=none -- true || echo "start $i: exit $?"; done; echo all',
    outcomes: works(/^all\n$/),
  },
];

/** Checks of nsexec, the self-test and what all commands have. */
export const OTHER: readonly Check[] = [
  ...nsexec.map((check) => ({ command: "nsexec", ...check }) as const),
  ...selfTest.map((check) => ({ command: "self-test", ...check }) as const),
  ...all.map((check) => ({ command: "all commands", ...check }) as const),
];
