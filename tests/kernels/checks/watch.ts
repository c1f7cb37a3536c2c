// Checks of `penne watch` with each back end.

import type { Check, Outcome } from "../check.ts";
import { fails, works } from "./outcomes.ts";

/** A command that makes a namespace; a user makes a user namespace with it. */
const MAKE = 'make() { if [ $EUID = 0 ]; then unshare --uts "$@"; else unshare -r --uts "$@"; fi; }; export -f make\n';
const COMMAND = "bash -c 'make sleep 4'";

/** Makes a namespace that lives until a line about it, such as `birth`, has been printed. */
function untilToldOf(watch: string, line: string): string {
  return `touch out; ${watch} -- bash -c 'make bash -c "until grep -q ^${line}: out; do sleep 0.1; done"' >out || code=$?
cat out; exit \${code:-0}`;
}

/** Checks that all back ends pass, each in its own manner. */
function ofEach(backend: "poll" | "proc" | "ebpf", refusals: readonly Outcome[]): Omit<Check, "command">[] {
  const watch = `${MAKE}penne watch --backend ${backend}`;
  const all = (...sees: (string | RegExp)[]): Outcome[] => [
    ...refusals.map((one) => ({ ...one, code: 125 })),
    { sees: [`backend=${backend}`, ...sees] },
  ];
  const alone = (...sees: (string | RegExp)[]): Outcome[] => [
    ...refusals.map((one) => ({ ...one, code: 1 })),
    { sees: [`backend=${backend}`, ...sees] },
  ];
  return [
    {
      title: "birth and death of a namespace of a command",
      script: untilToldOf(`${watch} --event birth,death --type uts`, "birth"),
      outcomes: all(/^birth: type=uts inum=\d+/m, /^death: type=uts inum=\d+/m, "summary: born=1 alive=0"),
      core: true,
    },
    {
      title: "all namespaces of a command have ended at its end",
      script: `${watch} --event birth,death -- ${COMMAND}`,
      outcomes: all(/^summary: born=\d+ alive=0$/m),
    },
    {
      title: "fork, exec and exit as JSON",
      script: `${watch} --json --event fork,exec,exit -- bash -c 'sleep 4; exit 4' || code=$?; exit \${code:-0}`,
      outcomes: [...refusals.map((one) => ({ ...one, code: 125 })), { code: 4, sees: ['"event":"exit"'] }],
    },
    {
      title: "the namespaces of a process change",
      script: untilToldOf(`${watch} --event ns --type uts`, "ns"),
      outcomes: all(/^ns: .*uts/m),
    },
    {
      title: "everything on the host, for a second",
      script: `${watch} --duration 2 --event exit,birth & sleep 1; make true; wait $!`,
      outcomes: alone(),
    },
  ];
}

const poll = ofEach("poll", []);
const proc = ofEach("proc", [{
  who: "user",
  before: "6.6",
  is: "refused",
  sees: [
    "cannot watch by the process connector: Operation not permitted (EPERM)",
    "before Linux 6.6 the process connector takes CAP_NET_ADMIN",
  ],
}]);
const ebpf = ofEach("ebpf", [
  {
    before: "5.12",
    who: "root",
    is: "refused",
    sees: ["cannot observe namespaces by eBPF: Operation not permitted (EPERM)", "penne's programs need Linux 5.12"],
  },
  {
    who: "user",
    is: "refused",
    sees: ["cannot observe namespaces by eBPF: Operation not permitted (EPERM)", "takes CAP_BPF and CAP_PERFMON"],
  },
]);

const auto: readonly Omit<Check, "command">[] = [
  {
    title: "the best back end that works",
    script: "penne watch --event exit -- true",
    outcomes: [
      {
        who: "root",
        before: "5.12",
        is: "falls back",
        to: "the process connector",
        sees: ["backend=proc", "refused=ebpf("],
      },
      { who: "root", sees: ["backend=ebpf"] },
      { before: "6.6", is: "falls back", to: "polling", sees: ["backend=poll", "refused=ebpf("] },
      { is: "falls back", to: "the process connector", sees: ["backend=proc", "refused=ebpf("] },
    ],
    core: true,
  },
  {
    title: "names of namespaces",
    who: "root",
    script: `penne watch --event name --type net --duration 12 >events & penne=$!
until [ -s events ]; do sleep 0.2; done
ip netns add blue; sleep 3; ip netns del blue; wait $penne; cat events`,
    outcomes: [
      { before: "6.15", is: "falls back", to: "comparing mount tables", sees: ["name=inferred", /^name: .*blue/m] },
      { sees: ["name=exact", /^name: .*blue/m] },
    ],
  },
  {
    title: "exact ends of namespaces",
    who: "root",
    script: "penne watch --event birth,death --type uts -- unshare --uts true",
    outcomes: [
      { before: "6.18", is: "falls back", to: "inferred ends", sees: ["death=inferred", "summary: born=1 alive=0"] },
      { sees: ["death=exact", "summary: born=1 alive=0"] },
    ],
  },
  {
    title: "failed calls",
    who: "root",
    script: "penne watch --failed --event ns,birth -- setpriv --reuid 1000 --clear-groups unshare --uts true || true",
    outcomes: [
      { before: "5.12", sees: ["failed=unseen"] },
      { sees: ["failed=exact", "EPERM"] },
    ],
  },
  {
    title: "filters by type, name and user",
    script: `penne watch --event exit --comm sleep --uid $EUID -- sh -c 'sleep 4; busybox true'`,
    outcomes: [{ sees: [/^exit: pid=\d+/m], not: [/(?:^exit: .*\n[^]*){2}/m] }],
  },
  {
    title: "exit codes of the command",
    script: "penne watch --event exit -- sh -c 'exit 6' || echo $?; penne watch -- no-such-program || echo $?",
    outcomes: works(/^6$/m, /^127$/m),
  },
  { title: "a wrong kind of event", script: "penne watch --event bith", outcomes: fails(2, "cannot use") },
  {
    title: "a file for the events",
    script: "penne watch -o events --event exit -- true; cat events",
    outcomes: works("capabilities: backend="),
  },
];

/** Checks of `penne watch`. */
export const WATCH: readonly Check[] = [
  ...poll.map((check) => ({ ...check, command: "watch (poll)", core: false }) as const),
  ...proc.map((check) => ({ ...check, command: "watch (proc)", core: false }) as const),
  ...ebpf.map((check) => ({ command: "watch (ebpf)", ...check }) as const),
  ...auto.map((check) => ({ command: "watch (auto)", ...check }) as const),
];
