// Checks of `penne run`.

import type { Check } from "../check.ts";
import { fails, works } from "./outcomes.ts";

/** Starts a server of socat on the loopback of the host, and waits until it listens. */
const SERVER = `socat TCP4-LISTEN:8000,reuseaddr,fork,bind=127.0.0.1 SYSTEM:'echo served; cat' & server=$!
trap 'kill $server' EXIT
until ss -tln | grep -q :8000; do sleep 0.1; done
`;

const checks: readonly Omit<Check, "command">[] = [
  {
    title: "uid 0, an init as PID 1, a host name of its own",
    script: `penne run --net=none --hostname box -- sh -c 'echo "$(id -u) $$ $(hostname)"; cat /proc/1/comm'`,
    outcomes: works("0 2 box\n", /^penne/m),
    core: true,
  },
  {
    title: "six new namespaces by default",
    script: `for type in user mnt pid ipc uts net; do readlink /proc/self/ns/$type; done >before
penne run --net=none -- sh -c 'for type in user mnt pid ipc uts net; do readlink /proc/self/ns/$type; done' >after
comm -12 <(sort before) <(sort after); wc -l <after`,
    outcomes: works(/^6\n$/),
  },
  {
    title: "loopback only with --net=none",
    script: "penne run --net=none -- ip -br addr",
    outcomes: [{ sees: [/^lo +UNKNOWN +127\.0\.0\.1\/8/], not: ["eth0"] }],
  },
  {
    title: "an interface with the addresses and routes of the host",
    script: "penne run -- sh -c 'ip -br addr; ip route; ip -6 route'",
    outcomes: works(/^eth0 .*192\.0\.2\.2\/24.*2001:db8::2\/64/m, "default via 192.0.2.1", "default via 2001:db8::1"),
  },
  {
    title: "TCP through the network, 4 MB there and back",
    script: `${SERVER}head -c 4000000 /dev/urandom >data
penne run --map-host-loopback 10.0.2.2 -- socat -t 30 - TCP4:10.0.2.2:8000 <data >answer
head -c 7 answer; tail -c +8 answer | cmp - data && echo same`,
    outcomes: works("served\nsame\n"),
    core: true,
  },
  {
    title: "TCP over IPv6",
    script: `socat TCP6-LISTEN:8001,reuseaddr,fork,bind=::1 SYSTEM:'echo served' & server=$!
trap 'kill $server' EXIT; until ss -tln | grep -q :8001; do sleep 0.1; done
penne run --map-host-loopback fd00::2 -- socat - 'TCP6:[fd00::2]:8001'`,
    outcomes: works("served\n"),
  },
  {
    title: "UDP through the network",
    script: `socat -T 60 -t 30 UDP4-RECVFROM:8002,bind=127.0.0.1,fork SYSTEM:'sed s/^/got-/' & server=$!
trap 'kill $server' EXIT; until ss -uln | grep -q :8002; do sleep 0.1; done
penne run --map-host-loopback 10.0.2.2 -- sh -c 'echo datagram | socat -t 10 - UDP4:10.0.2.2:8002'`,
    outcomes: works("got-datagram\n"),
  },
  {
    title: "UDP, hundreds of datagrams into the namespace at once",
    script: `socat -T 60 -t 30 UDP4-RECVFROM:8003,bind=127.0.0.1,fork SYSTEM:'seq -f %0400g 300' & server=$!
trap 'kill $server' EXIT; until ss -uln | grep -q :8003; do sleep 0.1; done
penne run --map-host-loopback 10.0.2.2 -- sh -c 'echo go | socat -t 5 - UDP4:10.0.2.2:8003 >answer; wc -c <answer'
grep -c . answer`,
    outcomes: works(/^[1-9]\d*$/m),
  },
  {
    title: "an echo request to the host's loopback",
    script: "penne run --map-host-loopback 10.0.2.2 -- busybox ping -c 1 -W 20 10.0.2.2",
    outcomes: works("1 packets received"),
  },
  {
    title: "a connection to a closed port is refused",
    script: "penne run --map-host-loopback 10.0.2.2 -- socat - TCP4:10.0.2.2:8999",
    outcomes: fails(1, "Connection refused"),
  },
  {
    title: "a connection to the loopback that nothing leads to is not the host's",
    script: `${SERVER}penne run -- socat - TCP4:127.0.0.1:8000`,
    outcomes: fails(1, "Connection refused"),
  },
  {
    title: "--exclude refuses connections",
    script: "penne run --exclude 198.51.100.0/24 -- socat - TCP4:198.51.100.1:80",
    outcomes: fails(1, /refused|unreachable|prohibited|not permitted/i),
  },
  {
    title: "chosen addresses, gateway, name, MAC address and MTU",
    script: `penne run -a 10.0.2.100/24 -g 10.0.2.2 -I tap9 --ns-mac-addr 02:00:00:00:00:07 -m 1400 -4 -- sh -c '
ip -br addr; ip route; ip link show tap9'`,
    outcomes: works(/^tap9 .*10\.0\.2\.100\/24/m, "default via 10.0.2.2", "02:00:00:00:00:07", "mtu 1400"),
  },
  {
    title: "--no-config-net leaves the interface down",
    script: "penne run --no-config-net -- ip -br addr",
    outcomes: [{ sees: [/^eth0 +DOWN/m], not: ["192.0.2.2"] }],
  },
  {
    title: "-6 sets up IPv6 only",
    script: "penne run -6 -- ip -br addr show eth0",
    outcomes: [{ sees: ["2001:db8::2/64"], not: ["192.0.2.2"] }],
  },
  {
    title: "name servers and search domains in resolv.conf",
    script: "penne run --dns 192.0.2.53 --search example.org -- cat /etc/resolv.conf; cat /etc/resolv.conf",
    outcomes: works("nameserver 192.0.2.53", "search example.org", "nameserver 192.0.2.1\n"),
  },
  {
    title: "--net=host",
    script: `[ "$(penne run --net=host -- readlink /proc/self/ns/net)" = "$(readlink /proc/self/ns/net)" ]`,
    outcomes: works(),
  },
  {
    title: "all ids of the user with --map auto",
    script: "penne run --net=none --map auto -- cat /proc/self/uid_map",
    outcomes: [
      { who: "user", sees: [/^ +0 +1000 +1\n +1 +200000 +65536$/m] },
      { code: 125, sees: ["/etc/subuid grants no subordinate ids to root"] },
    ],
    core: true,
  },
  {
    title: "--map self and --map none",
    script: `penne run --net=none --map self -- sh -c 'id -u; cat /proc/self/uid_map'
penne run --net=none --map none -- cat /proc/self/uid_map; echo end`,
    outcomes: [
      {
        who: "user",
        before: "6.1",
        is: "falls back",
        to: "no ping sockets",
        sees: ["warning: cannot permit ping sockets: Permission denied (EACCES)", /^1000\n +1000 +1000 +1\nend/m],
      },
      { who: "user", sees: [/^1000\n +1000 +1000 +1\nend/] },
      { sees: [/^0\n +0 +0 +1\nend/] },
    ],
  },
  {
    title: "chosen maps, and a user and groups in them",
    script: `penne run --net=none --map-users 5:$(id -u):1 --map-groups 6:$(id -g):1 --uid 5 --gid 6 -- sh -c '
id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map'`,
    outcomes: works(/^5\n6\n +5 +\d+ +1\n +6 +\d+ +1$/m),
  },
  {
    title: "another user of the map, and its capabilities",
    script: `penne run --net=none --map auto --uid 33 --gid 34 -- sh -c 'id -u; id -g; grep CapEff /proc/self/status'
penne run --net=none --map auto --uid 33 --keep-caps -- grep CapEff /proc/self/status`,
    who: "user",
    outcomes: works(/^33\n34\nCapEff:\s0{16}\nCapEff:\s0+[13]ff/m),
  },
  {
    title: "--no-new-privs and --setgroups deny",
    script: `penne run --net=none --no-new-privs --setgroups deny -- sh -c '
grep NoNewPrivs /proc/self/status; cat /proc/self/setgroups'`,
    outcomes: works("NoNewPrivs:\t1", "deny"),
  },
  {
    title: "clocks of its own",
    script: `penne run --net=none --monotonic 5000 --boottime 1000000 -- sh -c '
cat /proc/uptime; cat /proc/self/timens_offsets'`,
    outcomes: works(/^10\d{5}\./, /monotonic +5000/, /boottime +1000000/),
  },
  {
    title: "all namespaces with --unshare all",
    script: `for type in user mnt pid ipc uts net cgroup time; do readlink /proc/self/ns/$type; done | sort >before
penne run --net=none --unshare all -- sh -c '
for type in user mnt pid ipc uts net cgroup time; do readlink /proc/self/ns/$type; done' | sort >after
comm -12 before after; wc -l <after`,
    outcomes: works(/^8\n$/),
  },
  {
    title: "only some namespaces with --unshare",
    script: `penne run --unshare user,uts -- bash -c 'readlink /proc/self/ns/{mnt,pid,uts}' >inside
readlink /proc/self/ns/{mnt,pid,uts} >outside; diff inside outside | grep -c '^<'`,
    outcomes: works(/^1\n$/),
  },
  {
    title: "working directory and environment",
    script: `X=outside penne run --net=none --chdir /usr --env Y=1 --clear-env -- /bin/sh -c 'pwd; echo "$X,$Y"'`,
    outcomes: works("/usr\n,1\n"),
  },
  {
    title: "descriptors are closed, except those of --keep-fd",
    script:
      `echo text >file; penne run --net=none --keep-fd 5 -- sh -c 'cat <&5; ls /proc/self/fd | tr "\\n" " "' 5<file 6<file`,
    outcomes: works(/^text\n0 1 2 3 5 /),
  },
  {
    title: "the command as PID 1 with --no-init, in a new session with --new-session",
    script: `penne run --net=none --no-init -- sh -c 'echo $$'
penne run --net=none --new-session -- sh -c 'read -r _ _ _ _ _ session _ </proc/self/stat; [ $session = $$ ] && echo leads'`,
    outcomes: works("1\nleads\n"),
  },
  {
    title: "exit codes of the command",
    script: `penne run --net=none -- sh -c 'exit 7' || echo $?
penne run --net=none -- sh -c 'kill -TERM $$' || echo $?
penne run --net=none -- no-such-program || echo $?
penne run --net=none -- /etc/passwd || echo $?`,
    outcomes: works(
      /^7\n143\n/,
      /\n127\n/,
      /\n126\n$/,
      'cannot run "no-such-program": No such file or directory (ENOENT)',
    ),
  },
  {
    title: "a wrong option",
    script: "penne run --hostnam box -- true",
    outcomes: fails(2, "cannot use --hostnam: there is no such option", "hint: did you mean --hostname?"),
  },
  {
    title: "in the background, with a pid file, ended by a signal",
    script: `penne run --net=none --background --pid-file pid -- sleep 1000
cat pid; kill "$(cat pid)"; while [ -e pid ]; do sleep 0.1; done; echo ended`,
    outcomes: works(/^\d+\nended\n$/),
  },
  {
    title: "readiness and status on descriptors",
    script: "penne run --net=none --ready-fd 3 --status-fd 4 -- true 3>ready 4>status; cat ready status",
    outcomes: works(/"event":"exit"|exit/),
  },
  {
    title: "descendants end with penne, even if it is killed",
    script: `penne run --net=none -- sh -c 'sleep 4321 & sleep 4321' & pid=$!
until pgrep -x -f 'sleep 4321' >/dev/null; do sleep 0.1; done
kill -KILL $pid; while pgrep -x -f 'sleep 4321' >/dev/null; do sleep 0.1; done; echo gone`,
    outcomes: works("gone\n"),
    core: true,
  },
  {
    title: "--kill-signal lets the command clean up",
    script:
      `penne run --net=none --kill-signal TERM -- sh -c 'trap "echo cleaned; exit 3" TERM; touch ready; sleep 1000 & wait' &
until [ -e ready ]; do sleep 0.1; done; kill $!; wait $! || echo $?`,
    outcomes: works("cleaned\n"),
  },
  {
    title: "executing a memfd is forbidden (vm.memfd_noexec=2)",
    who: "root",
    script: `trap 'sysctl -qw vm.memfd_noexec=0 || true' EXIT
[ ! -e /proc/sys/vm/memfd_noexec ] || sysctl -qw vm.memfd_noexec=2
penne run --net=none -- sh -c 'id -u; echo $$'`,
    outcomes: [
      { before: "6.3", sees: ["0\n2\n"] },
      { is: "falls back", to: "forked agents", sees: ["0\n2\n"] },
    ],
  },
  {
    title: "no user namespaces are allowed (user.max_user_namespaces=0)",
    who: "root",
    script:
      `before=$(cat /proc/sys/user/max_user_namespaces); trap 'echo $before >/proc/sys/user/max_user_namespaces' EXIT
echo 0 >/proc/sys/user/max_user_namespaces
setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all penne run --net=none -- true`,
    outcomes: fails(125, "user.max_user_namespaces"),
  },
  {
    title: "the device is closed",
    who: "root",
    script: `chmod 600 /dev/net/tun; trap 'chmod 666 /dev/net/tun' EXIT
setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all penne run -- true`,
    outcomes: fails(125, "/dev/net/tun", "hint: "),
  },
];

/** Checks of `penne run`. */
export const RUN: readonly Check[] = checks.map((check) => ({ command: "run", ...check }));
