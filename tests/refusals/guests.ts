// The hosts that cannot be made on the machine of the tests: security modules, and settings of other kernels.

import type { Guest, Host } from "./host.ts";

const RUN = "$user penne run -- echo ran";
const NONE = "$user penne run --net=none -- echo ran";
/** A process of the user's in namespaces of its own; its pid is $target. It says that it is there, and ends with the script. */
const TARGET = `coproc TARGET { exec $user unshare --user --map-root-user --net bash -c 'echo; read'; }
target=$TARGET_PID; read <&\${TARGET[0]}
`;
const ENTER = "$user penne enter $target -- echo ran";
const SYSCTL = `sh -c "\${hint##*as root: }"`;

/** Everything that penne needs of a profile, by what a rule is about. */
const RULES: Readonly<Record<string, string>> = {
  userns: "userns,",
  capability: "capability,",
  mount: "mount, umount, pivot_root,",
  ptrace: "ptrace,",
  network: "network,",
  execute: "/ rix,",
  devices: "/dev/** rw,",
  rest:
    "unix, signal, change_profile, / r, /[^d]** rwlkm, /d[^e]** rwlkm, /dev/ r, /dev/null rw, /{usr,job,lib}/** ix,",
};

/** Loads a profile for penne, with rules and flags. */
const LOAD = `load() {
  echo "abi <abi/4.0>, profile penne /usr/local/bin/penne $flags { $rules }" >/etc/apparmor.d/penne
  apparmor_parser -r /etc/apparmor.d/penne
}
`;

/** A profile without some of the rules; the fix adds what the hint says. */
function profile(
  without: string,
  { instead = "", flags = "flags=(attach_disconnected)", make = "", command = RUN }: {
    readonly instead?: string;
    readonly flags?: string;
    readonly make?: string;
    readonly command?: string;
  },
  ...says: Required<Host>["says"]
): Host {
  const rules = Object.entries(RULES).map(([name, rule]) => name === without ? instead : rule);
  return {
    name: `an AppArmor profile without ${without || "attach_disconnected"}${instead && `, with ${instead}`}`,
    make: `${make}${LOAD}rules='${rules.join(" ")}' flags='${flags}'; load`,
    command,
    says: [...says, /^hint: the AppArmor profile "penne" denies /m],
    fix: `added=\${hint#* add }; added=\${added%% and remove what denies it*}
case $added in flags=*) flags=\${added%% and *} ;; esac
rules="$rules $(grep -o '"[^"]*"' <<<"$added" | tr -d '"')"
load`,
  };
}

/** Undoes what the host before has made, however that ended. */
const UNDO = `while mountpoint -q /proc/sys/kernel; do umount /proc/sys/kernel; done
for profile in $(sed 's/ (.*//' /sys/kernel/security/apparmor/profiles); do
  printf %s $profile >/sys/kernel/security/apparmor/.remove
done
rm -rf /tmp/k /etc/apparmor.d/penne
sysctl -qw kernel.unprivileged_userns_clone=1 net.core.bpf_jit_enable=1`;

/** Profiles like those of Ubuntu 24.04. There, a setting puts user namespaces under the second one; here, what agents are
 * executed from does. A file stands for that setting, which Debian's kernels do not have. */
const UBUNTU = `cat >/etc/apparmor.d/penne <<'.'
abi <abi/4.0>,
profile penne /usr/local/bin/penne flags=(unconfined, attach_disconnected) { userns, }
profile unprivileged_userns / flags=(attach_disconnected) {
  audit deny capability, audit deny change_profile,
  network, signal, dbus, unix, mqueue, ptrace, userns, / rix, /** rwlkm, /** pix,
}
.
apparmor_parser -r /etc/apparmor.d/penne
mkdir /tmp/k; for file in /proc/sys/kernel/*; do [ ! -f $file ] || cat $file >/tmp/k/\${file##*/} 2>/dev/null || true; done
echo 1 >/tmp/k/apparmor_restrict_unprivileged_userns; mount --bind /tmp/k /proc/sys/kernel`;

/** Policy of SELinux in which each type lacks one permission. */
const POLICY = (() => {
  const lacks = {
    userns: ["user_namespace", "create"],
    caps: ["cap_userns", "sys_admin"],
    routes: ["netlink_route_socket", "create"],
    programs: ["bpf", "prog_load"],
  };
  const classes = Object.values(lacks);
  const all = ["host", ...Object.keys(lacks)].map((name) => `${name}_t`);
  const context = "(u r host_t ((s0) (s0)))";
  return [
    "(handleunknown allow) (mls false) (policycap open_perms)",
    "(class process (transition dyntransition))",
    ...classes.map(([name, permission]) => `(class ${name} (${permission}))`),
    `(classorder (process ${classes.map(([name]) => name).join(" ")}))`,
    `(sid kernel) (sid security) (sid unlabeled) (sidorder (kernel security unlabeled))`,
    ...["kernel", "security", "unlabeled"].map((sid) => `(sidcontext ${sid} ${context})`),
    "(sensitivity s0) (sensitivityorder (s0)) (category c0) (categoryorder (c0)) (sensitivitycategory s0 (c0))",
    "(user u) (userlevel u (s0)) (userrange u ((s0) (s0))) (role r) (userrole u r) (typeattribute domain)",
    ...all.map((type) => `(type ${type}) (roletype r ${type}) (typeattributeset domain ${type})`),
    "(allow domain domain (process (transition dyntransition)))",
    ...Object.entries(lacks).flatMap(([name, [kind, permission]]) =>
      all.filter((type) => type !== `${name}_t`).map((type) => `(allow ${type} domain (${kind} (${permission})))`)
    ),
  ].join("\n");
})();

/** A domain that lacks a permission; the fix allows it to that domain, as the module that audit2allow makes would. */
function domain(name: string, rule: string, command: string, ...says: Required<Host>["says"]): Host {
  return {
    name: `SELinux that denies ${rule}`,
    make:
      `load() { secilc -c 33 -M false -o /tmp/policy -f /dev/null /tmp/policy.cil; cat /tmp/policy >/sys/fs/selinux/load; }
[ -e /sys/fs/selinux/load ] || mount -t selinuxfs selinuxfs /sys/fs/selinux
cat >/tmp/policy.cil <<'.'
${POLICY}
.
load; echo 1 >/sys/fs/selinux/enforce
within() { (echo -n "u:r:${name}_t" >/proc/self/attr/exec; exec "$@"); }`,
    command: `within ${command}`,
    says: [...says, new RegExp(`^hint: SELinux is enforcing and denies .* to u:r:${name}_t; .*audit2allow`, "m")],
    fix: `echo '(allow ${name}_t domain ${rule})' >>/tmp/policy.cil; load`,
  };
}

/** Debian's kernel as it is. */
export const DEBIAN: Guest = {
  name: "AppArmor and settings",
  undo: UNDO,
  hosts: [
    profile("userns", {}, "cannot create namespaces (user, mnt, pid, ipc, uts, net): Permission denied (EACCES)"),
    profile(
      "capability",
      {},
      "cannot create namespaces (user, mnt, pid, ipc, uts, net): Operation not permitted (EPERM)",
    ),
    profile(
      "capability",
      { instead: "capability sys_admin sys_chroot setuid setgid setpcap dac_override,", command: NONE },
      "cannot bring up loopback: Operation not permitted (EPERM)",
    ),
    profile("mount", {}, "cannot make mounts private: Permission denied (EACCES)"),
    profile("network", { instead: "network inet, network inet6, network unix," }, "cannot look at the host's network"),
    profile("devices", {}, "cannot open /dev/net/tun: Permission denied (EACCES)"),
    profile("ptrace", { make: TARGET, command: ENTER }, /cannot open the user namespace of process \d+: .*EACCES/),
    profile("execute", { make: TARGET, command: ENTER }, "agents cannot be executed here", "denies executing a memfd"),
    profile("", { flags: "", make: TARGET, command: ENTER }, "denies opening the files of namespaces"),
    {
      name: "profiles like those of Ubuntu 24.04",
      make: UBUNTU,
      // Penne goes before its agents, so that it looks at one that has not quite been executed.
      command: `chrt --reset-on-fork --fifo 1 ${NONE}`,
      says: [
        "cannot make mounts private: Permission denied (EACCES)",
        "hint: AppArmor restricts user namespaces of programs without a profile (kernel.apparmor_restrict_unprivileged",
        'it puts them under the profile "unprivileged_userns", which denies mounting',
      ],
      fix: `umount /proc/sys/kernel; command=\${hint#*as root: }; sh -c "\${command%; or sysctl*}"`,
    },
    {
      name: "kernel.unprivileged_userns_clone",
      make: "sysctl -qw kernel.unprivileged_userns_clone=0",
      command: NONE,
      says: ["cannot create namespaces", "hint: kernel.unprivileged_userns_clone is 0, "],
      fix: SYSCTL,
    },
    {
      name: "a kernel without its JIT compiler for BPF",
      make: "sysctl -qw net.core.bpf_jit_enable=0",
      command: "penne watch --backend ebpf -o /dev/null -- echo ran",
      says: ["cannot observe namespaces by eBPF: ", "hint: net.core.bpf_jit_enable is 0, "],
      fix: SYSCTL,
    },
    {
      // The last one: this setting cannot be undone.
      name: "Yama, which refuses nothing of penne's",
      make: `${TARGET}sysctl -qw kernel.yama.ptrace_scope=3`,
      command: ENTER,
    },
  ],
};

/** Kernels that are started with other options. */
export const OTHERS: readonly Guest[] = [
  {
    name: "SELinux",
    undo: "if [ -e /sys/fs/selinux/enforce ]; then echo 0 >/sys/fs/selinux/enforce; fi",
    options: "security=selinux selinux=1 enforcing=0",
    hosts: [
      domain("userns", "(user_namespace (create))", NONE, "cannot create namespaces", "denies user namespaces to"),
      domain("caps", "(cap_userns (sys_admin))", NONE, "cannot create namespaces", "denies CAP_SYS_ADMIN to"),
      domain(
        "routes",
        "(netlink_route_socket (create))",
        RUN,
        "cannot look at the host's network",
        "denies AF_NETLINK",
      ),
      domain(
        "programs",
        "(bpf (prog_load))",
        "penne watch --backend ebpf -o /dev/null -- echo ran",
        "cannot observe namespaces by eBPF: Permission denied (EACCES)",
      ),
    ],
  },
  {
    name: "lockdown",
    options: "lockdown=confidentiality",
    hosts: [
      {
        name: "a kernel that is locked down",
        make: "backend=ebpf",
        command: "penne watch --backend $backend -o /dev/null -- echo ran",
        says: [
          /cannot observe namespaces by eBPF: .*\(EINVAL\)/,
          "hint: the kernel is locked down in confidentiality mode",
        ],
        // The fix is to start the kernel in another way. Without it there is another back end.
        fix: "backend=auto",
      },
    ],
  },
];
