// Checks of kept sets: keep, enter with a name, inspect and drop.

import type { Check } from "../check.ts";
import { fails, works } from "./outcomes.ts";

/** Drops everything that is left at the end. */
const CLEAN = "trap 'penne drop --all --force 2>/dev/null || true' EXIT\n";
/** Selects a word on the console and pastes it into the console's input, TIOCLINUX of ioctl_console(2), and ends the line. */
const PASTE = `cat >paste.pl <<'END'
$| = 1; print "\\e[2J\\e[Hpasted\\n"; select undef, undef, undef, 0.3;
my ($select, $paste, $end) = (pack("CSSSSS", 2, 1, 1, 80, 1, 0), pack("C", 3), "\\n");
ioctl(STDIN, 0x541c, $select); ioctl(STDIN, 0x541c, $paste); ioctl(STDIN, 0x5412, $end);
END
typed() {
  setsid --ctty --wait bash -c '"$@"; read -rt 5 line; echo "read: $line" >&3' - "$@" 3>&1 </dev/tty1 >/dev/tty1 2>&1
}
`;
/** A kept set with something in it. */
const BOX = `${CLEAN}penne keep box --hostname boxed -- sh -c 'mount -t tmpfs none /mnt && echo hello >/mnt/file'
`;

const keep: readonly Omit<Check, "command">[] = [
  {
    title: "new namespaces with what a command has set up, entered by name, dropped",
    script:
      `${BOX}penne enter box -- sh -c 'cat /mnt/file; hostname; id -u'; penne drop box; penne enter box -- true || echo $?`,
    outcomes: works(/^hello\nboxed\n0\n/, /125\n$/),
    core: true,
  },
  {
    title: "the namespaces of a process, after its end",
    script: `${CLEAN}user=; [ $EUID = 0 ] || user='--user --map-root-user'
unshare $user --net --uts sh -c 'hostname old; touch ready; exec sleep 1000' & target=$!
until [ -e ready ]; do sleep 0.1; done; penne keep of-process --pid $target; kill $target; wait $target || true
penne enter of-process -- hostname; penne drop of-process`,
    outcomes: works("old\n"),
  },
  {
    title: "a set-up command of another user, which types nothing into the console of root",
    who: "root",
    script: `${PASTE}typed perl paste.pl; typed penne keep theirs --user 1000 -- perl "$PWD/paste.pl"
grep -o pasted /dev/vcs1; penne drop theirs --user 1000`,
    outcomes: works("read: pasted\nread: \npasted\n"),
  },
  {
    title: "no set where the command fails",
    script: `${CLEAN}penne keep bad -- sh -c 'exit 9' || echo $?; penne inspect bad || echo $?`,
    outcomes: works(/^9\n/, /1\n$/),
  },
  {
    title: "no set where the command takes too long",
    script: `${CLEAN}penne keep slow --timeout 1 -- sleep 1000 || echo $?; penne inspect slow || echo $?`,
    outcomes: works(/^(.*\n)*124\n/, /1\n$/),
  },
  {
    title: "clocks, chosen namespaces",
    script: `${CLEAN}penne keep clock --unshare user,uts,time --boottime 3000000 --hostname clock -- true
penne enter clock -- sh -c 'cat /proc/uptime; hostname'`,
    outcomes: works(/^30\d{5}\..*\nclock\n$/),
  },
  {
    title: "a pid namespace without a process of its own",
    script: `${CLEAN}penne keep pids --unshare user,pid,mnt -- true
penne enter pids -- sh -c 'ps -e -o comm= | tr "\\n" " "'`,
    outcomes: works("penne-agent"),
  },
  {
    title: "all subordinate ids",
    who: "user",
    script: `${CLEAN}penne keep ids --map auto -- sh -c 'echo x >/dev/null'; penne enter ids -- cat /proc/self/uid_map`,
    outcomes: works(/^ +0 +1000 +1\n +1 +200000 +65536\n$/),
  },
  {
    title: "a set of root for a user",
    who: "root",
    script: `${CLEAN}penne keep job --user penne-test -- true; penne inspect --user penne-test job
setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all env XDG_RUNTIME_DIR=/run/user/1000 \\
  penne enter --user penne-test job -- id -u; penne drop --user penne-test job`,
    outcomes: works(/job[^]*0\n$/),
  },
  {
    title: "the layout of snap-confine",
    who: "root",
    script: `penne keep snappy --layout snap --dir /run/snapd/ns -- mount -t tmpfs none /mnt; find /run/snapd/ns
penne drop snappy --layout snap --dir /run/snapd/ns`,
    outcomes: works("snappy.mnt"),
  },
  {
    title: "a set that is not stale is left alone, a stale one is made anew",
    script: `${CLEAN}penne keep app --key 1 -- sh -c 'echo set-up'; penne keep app --key 1 -- sh -c 'echo set-up'
penne keep app --key 2 -- sh -c 'echo again'; penne enter app --key 2 -- echo entered
penne enter app --key 3 -- true || echo $?`,
    outcomes: works(/^set-up\n(penne: warning: .*\n)?again\nentered\n/, /125\n$/),
  },
  {
    title: "another directory",
    script: `mkdir sets; trap 'penne drop --all --force --dir "$PWD/sets"' EXIT
penne keep there --dir "$PWD/sets" -- true; penne enter there --dir "$PWD/sets" -- echo entered; ls sets`,
    outcomes: works("entered\n"),
  },
  {
    title: "a name that exists",
    script: `${BOX}penne keep box --pid $$`,
    outcomes: fails(1, "cannot "),
  },
];

const inspect: readonly Omit<Check, "command">[] = [
  { title: "a set in words", script: `${BOX}penne inspect box`, outcomes: works("box", "net", "mnt", "uts") },
  {
    title: "a set as JSON",
    script: `${BOX}penne inspect --json box`,
    outcomes: works('"name":"box"', '"inum":'),
  },
  {
    title: "ids that are never reused",
    script: `${BOX}penne inspect --json box`,
    outcomes: [
      { before: "6.18", is: "falls back", to: "inode numbers; ids are null", sees: ['"id":null'] },
      { sees: [/"id":"?\d+/] },
    ],
  },
  { title: "a set that does not exist", script: "penne inspect no-such-set", outcomes: fails(1, "no-such-set") },
  {
    title: "processes inside",
    script: `${BOX}penne enter box -- sleep 4325 & until pgrep -x -f 'sleep 4325' >/dev/null; do sleep 0.1; done
penne inspect box; kill $!`,
    outcomes: works("sleep"),
  },
];

const drop: readonly Omit<Check, "command">[] = [
  {
    title: "a set in use, without and with --force",
    script: `${BOX}penne enter box -- sleep 4326 & until pgrep -x -f 'sleep 4326' >/dev/null; do sleep 0.1; done
penne drop box || echo $?; penne drop --force box; pgrep -x -f 'sleep 4326' >/dev/null && echo runs; kill $!`,
    outcomes: works(/cannot .*\n(.*\n)*1\nruns\n/),
  },
  {
    title: "all sets; no namespace, mount or holder is left",
    script: `before=$(grep -c nsfs /proc/self/mountinfo || true)
${BOX}penne keep two --unshare user,pid,mnt -- true; penne drop --all; penne inspect
while pgrep -u $EUID penne-agent; do sleep 0.1; done; [ "$(grep -c nsfs /proc/self/mountinfo || true)" = "$before" ] && echo clean`,
    outcomes: works("clean\n"),
  },
  {
    title: "only stale sets",
    script: `${CLEAN}penne keep one --key 1 -- true; penne keep two --key 2 -- true; penne drop --all --stale --key 1
penne inspect one >/dev/null && echo one; penne inspect two || echo $?`,
    outcomes: works(/^one\n(.*\n)*1\n$/),
  },
  { title: "a set that does not exist", script: "penne drop no-such-set", outcomes: fails(1, "no-such-set") },
];

/** Checks of keep, inspect and drop. */
export const KEPT: readonly Check[] = [
  ...keep.map((check) => ({ command: "keep", ...check }) as const),
  ...inspect.map((check) => ({ command: "inspect", ...check }) as const),
  ...drop.map((check) => ({ command: "drop", ...check }) as const),
];
