// Services of a real systemd, in a container: settings that refuse what penne needs are named, and so is what lifts them.

import { assertEquals, assertMatch } from "@std/assert";
import { penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { hintsIn } from "./lab/hosts.ts";

/** A service. */
interface Service {
  /** Settings that refuse something. */
  readonly settings: readonly string[];
  /** Arguments of penne, which print "ran". */
  readonly args: string;
  /** What penne says. */
  readonly says: RegExp;
  /** The settings that it asks for. */
  readonly fix: RegExp;
}

const NONE = "run --net=none -- echo ran";
const AUTO = "run --net=none --map auto -- echo ran";
const USER = `User=${TEST_USER}`;

const SERVICES: Readonly<Record<string, Service>> = {
  namespaces: {
    settings: ["RestrictNamespaces=yes"],
    args: NONE,
    says: /cannot create namespaces .*\(EPERM\)/,
    fix: /^RestrictNamespaces=no$/,
  },
  families: {
    settings: ["RestrictAddressFamilies=AF_UNIX AF_INET"],
    args: NONE,
    says: /cannot make a socket: .*\(EAFNOSUPPORT\)/,
    fix: /^RestrictAddressFamilies=AF_NETLINK$/,
  },
  calls: {
    settings: ["SystemCallFilter=~@mount", "SystemCallErrorNumber=EPERM"],
    args: NONE,
    says: /cannot make mounts private: .*\(EPERM\)/,
    fix: /^SystemCallFilter=@mount$/,
  },
  hostname: {
    settings: ["ProtectHostname=yes"],
    args: "run --net=none --hostname box -- echo ran",
    says: /cannot set the host ?name.*\(EPERM\)/,
    fix: /^ProtectHostname=no$/,
  },
  devices: {
    settings: ["PrivateDevices=yes"],
    args: "run -- echo ran",
    says: /cannot open \/dev\/net\/tun/,
    fix: /^PrivateDevices=no and DeviceAllow=\/dev\/net\/tun rw$/,
  },
  users: {
    settings: [USER, "PrivateUsers=yes"],
    args: AUTO,
    says: /cannot map ids with newuidmap/,
    fix: /^PrivateUsers=no$/,
  },
  privileges: {
    settings: [USER, "NoNewPrivileges=yes"],
    args: AUTO,
    says: /cannot map ids with newuidmap/,
    fix: /^NoNewPrivileges=no$/,
  },
  files: {
    settings: ["LimitNOFILE=20"],
    args: NONE,
    says: /\(EMFILE\)/,
    fix: /^LimitNOFILE=\d+$/,
  },
};

/**
 * Starts systemd as PID 1 of a container with a cgroup of its own, and these units alone, and waits for its end. The units
 * are in `$1/units`, and each service writes to a file in `$1`.
 */
const BOOT = `set -eu
mkdir "$1/cgroup"; mount -t cgroup2 none "$1/cgroup"; group=$1/cgroup/penne-test-$$; mkdir "$group"
echo $$ >"$group/cgroup.procs"
code=0
timeout --signal=KILL 120 unshare -muiCpf --propagation private --mount-proc --kill-child sh -euc '
  umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
  mount -t tmpfs none /run
  mount --bind /etc /etc; mount -o remount,bind,ro /etc
  for init in /usr/lib/systemd/systemd /lib/systemd/systemd; do [ ! -x $init ] || break; done
  exec env -i container=penne-test PATH="$PATH" SYSTEMD_UNIT_PATH=$1/units $init --system --unit=end.service \\
    --log-target=console --show-status=no
' sh "$1" || code=$?
echo $$ >"$1/cgroup/cgroup.procs"
for i in $(seq 100); do rmdir "$group" 2>/dev/null && break; find "$group" -mindepth 1 -depth -type d -exec rmdir {} + || true; sleep 0.1; done
umount "$1/cgroup"; rmdir "$1/cgroup"
exit $code`;

/** Runs all services, each with what is added to its settings. @returns What each has printed. */
async function runAll(directory: string, added: Readonly<Record<string, string>>): Promise<Record<string, string>> {
  const names = Object.keys(SERVICES);
  const units = names.map((name) => `${name}.service`).join(" ");
  const write = (name: string, lines: readonly string[]) =>
    Deno.writeTextFile(`${directory}/units/${name}`, lines.map((line) => `${line}\n`).join(""));
  const own = ["[Unit]", "DefaultDependencies=no"];
  // The last one ends systemd.
  const end = ["SuccessAction=exit-force", "FailureAction=exit-force", `Wants=${units}`, `After=${units}`];
  await write("end.service", [...own, ...end, "[Service]", "Type=oneshot", "ExecStart=/bin/true"]);
  for (const [name, { settings, args }] of Object.entries(SERVICES)) {
    const outputs = [`StandardOutput=truncate:${directory}/${name}`, "StandardError=inherit"];
    const service = ["[Service]", "Type=oneshot", ...outputs, ...settings, ...(added[name] ?? "").split(" and ")];
    await write(`${name}.service`, [...own, ...service, `ExecStart=${penne()} ${args}`]);
  }
  const { code, stdout, stderr } = await sh(["unshare", "-m", "sh", "-c", BOOT, "sh", directory]);
  assertEquals(code, 0, stdout + stderr);
  return Object.fromEntries(names.map((name) => [name, Deno.readTextFileSync(`${directory}/${name}`)]));
}

test("each setting of a service that refuses something is named, and the one that is asked for works", [
  "root",
  "user",
  "tun",
  "newuidmap",
  "initial pid namespace",
  "pids cgroup",
  "package:systemd",
  "package:util-linux",
], async () => {
  const directory = await Deno.makeTempDir({ prefix: "penne-systemd-" });
  try {
    await Deno.mkdir(`${directory}/units`);
    const refused = await runAll(directory, {});
    const fixes = Object.fromEntries(
      Object.entries(SERVICES).map(([name, { says, fix }]) => {
        const printed = refused[name]!;
        assertMatch(printed, says, name);
        const hints = hintsIn(printed).map((hint) => hint.split(`systemctl edit ${name}.service: `)[1]);
        const found = hints.find((hint) => hint !== undefined)?.replace(/(; | \().*$/, "") ?? printed;
        assertMatch(found, fix, name);
        return [name, found];
      }),
    );
    const names = Object.keys(SERVICES);
    assertEquals(await runAll(directory, fixes), Object.fromEntries(names.map((name) => [name, "ran\n"])));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
