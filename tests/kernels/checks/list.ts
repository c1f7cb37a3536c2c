// Checks of what lists and explains: ls and doctor; and of the ports of a running penne, and pasta's command line.

import type { Check } from "../check.ts";
import { fails, works } from "./outcomes.ts";

/** A process in a network namespace of its own, as $target. */
const TARGET = `user=; [ $EUID = 0 ] || user=--map-root-user
unshare $user --net sh -c 'touch ready; exec sleep 4400' & target=$!; trap 'kill $target 2>/dev/null || true' EXIT
until [ -e ready ]; do sleep 0.1; done
inum=$(readlink "/proc/$target/ns/net" | tr -dc 0-9)
`;

const ls: readonly Omit<Check, "command">[] = [
  {
    title: "the namespace of a process",
    script: `${TARGET}penne ls --type net $target`,
    outcomes: works(/^net +\d+ +\d+ +1 +\d+ +- +sleep 4400$/m),
  },
  {
    title: "a namespace that only a descriptor holds",
    script: `${TARGET}exec 8</proc/$target/ns/net; kill $target; wait $target || true
penne ls --orphans --holders --type net $inum`,
    outcomes: works(/^net +\d+ +\d+ +0 +- +- +-$/m, /descriptor 8 of process \d+ \(bash\)/),
  },
  {
    title: "a name of ip netns, and a mount in another mount namespace",
    who: "root",
    script: `ip netns add list-blue; trap 'ip netns del list-blue' EXIT; penne ls --holders netns:list-blue
touch other; mount --bind /run/netns/list-blue other; penne ls --holders netns:list-blue; umount other`,
    outcomes: works(/^net .* netns:list-blue +-$/m, "mount /run/netns/list-blue", "/other"),
  },
  {
    title: "user namespaces below their parents, and what they own",
    script: `${TARGET}penne ls --tree --type user,net $target`,
    outcomes: works(/^user +\d.*\n└─net +\d.* sleep 4400$/m),
  },
  {
    title: "ids that are never reused",
    script: `${TARGET}penne ls --json --type net $target`,
    outcomes: [
      { before: "6.18", is: "falls back", to: "inode numbers; ids are null", sees: ['"id":null'] },
      { sees: [/"id":"\d+"/] },
    ],
  },
  {
    title: "all namespaces, also those that nothing shows",
    script: "penne ls --json",
    outcomes: [
      { who: "user", is: "falls back", to: "what its own processes hold", sees: ['"complete":false'] },
      { before: "6.18", is: "falls back", to: "what processes and mounts show", sees: ['"complete":false'] },
      { sees: ['"complete":true'] },
    ],
  },
  { title: "a namespace that does not exist", script: "penne ls 4294967294", outcomes: fails(1, "4294967294") },
];

const doctor: readonly Omit<Check, "command">[] = [
  {
    title: "what run needs is there",
    script: "penne doctor run",
    outcomes: works(/^ok +make namespaces/m, /^ok +open \/dev\/net\/tun/m),
  },
  {
    title: "everything, as JSON, with what the kernel lacks",
    script: "penne doctor --json || true",
    outcomes: works('"abilities":[', '"features":['),
  },
  {
    title: "a closed device, and the fix",
    who: "root",
    script: `user="setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all"; trap 'chmod 666 /dev/net/tun' EXIT
chmod 600 /dev/net/tun; $user penne doctor run || echo "exit $?"; chmod 666 /dev/net/tun; $user penne doctor run >/dev/null && echo mended`,
    outcomes: works(/^refused +open \/dev\/net\/tun/m, "fix: as root: chmod 666 /dev/net/tun", "exit 1\nmended\n"),
  },
];

const ports: readonly Omit<Check, "command">[] = [
  {
    title: "opened, shown, used and closed while a command runs",
    script: `penne run -- sh -c 'touch ready; exec socat TCP-LISTEN:80,fork,reuseaddr EXEC:"echo inside"' & penne=$!
until [ -e ready ]; do sleep 0.1; done; pid=$(pgrep -n -x socat); trap 'kill $penne' EXIT
penne ports add $pid -t 127.0.0.1/8180:80; penne ports ls $pid
for i in 1 2 3 4 5 6 7 8 9; do got=$(socat -u TCP:127.0.0.1:8180 -) && [ "$got" ] && break; sleep 0.3; done; echo "$got"
penne ports del $pid -t 127.0.0.1/8180:80; socat -u TCP:127.0.0.1:8180 - || echo closed`,
    outcomes: works("8180", "inside\n", /^closed$/m),
  },
];

const pasta: readonly Omit<Check, "command">[] = [
  {
    title: "a command with an interface that is set up",
    script: "penne pasta --config-net -- sh -c 'id -u; ip -br -4 addr show eth0; ip route'",
    outcomes: works(/^0\n/m, /192\.0\.2\.2\/24/, /^default via 192\.0\.2\.1/m),
  },
  { title: "an option that there is not", script: "penne pasta --no-such-option", outcomes: [{ code: 1 }] },
];

/** Checks of ls, doctor, ports and pasta. */
export const LIST: readonly Check[] = [
  ...ls.map((check) => ({ command: "ls", ...check }) as const),
  ...doctor.map((check) => ({ command: "doctor", ...check }) as const),
  ...ports.map((check) => ({ command: "ports", ...check }) as const),
  ...pasta.map((check) => ({ command: "pasta", ...check }) as const),
];
