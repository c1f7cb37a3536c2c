// The command's own files stay in their place, whatever the host does to the files that they stand for.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { asUser, atOnce, type Need, penne, ROOT, sh, test } from "../lib/helpers.ts";

const NEEDS: readonly Need[] = [
  ...["root", "user", "user namespaces", "tun", "newuidmap"] as const,
  ...["package:bash", "package:procps", "package:python3", "package:util-linux"] as const,
];

/** How the host may have /etc/resolv.conf, and a directory $R of its own: shell commands. */
const KINDS: Record<string, string> = {
  "a file": "host A > /etc/resolv.conf",
  "a link": "host A > $R/stub; ln -s ..$R/stub /etc/resolv.conf",
  "a link to a link": "host A > $R/stub; ln -s stub $R/middle; ln -s $R/middle /etc/resolv.conf",
  "a link that leads nowhere yet": "ln -s $R/stub /etc/resolv.conf",
};

/** What the host may do to it; the file is new.example's afterwards. */
const CHANGES: Record<string, string> = {
  "written in place": "host B > /etc/resolv.conf",
  "replaced by rename": "host B > /etc/new; mv -T /etc/new /etc/resolv.conf",
  "removed, and made again at once": "rm -f /etc/resolv.conf; host B > /etc/resolv.conf",
  "removed, and made again later": "rm -f /etc/resolv.conf; sleep 0.3; host B > /etc/resolv.conf",
  "moved away, and made again": "mv -T /etc/resolv.conf /etc/old; host B > /etc/resolv.conf",
  "exchanged": "host B > /etc/other; exchange /etc/other /etc/resolv.conf; rm /etc/other",
  "linked by rename": "host B > $R/other; ln -s $R/other /etc/new; mv -T /etc/new /etc/resolv.conf",
  "a hard link by rename": "host B > /etc/x; ln /etc/x /etc/y; mv /etc/y /etc/resolv.conf",
  "its target replaced by rename": "host B > $R/new; mv -T $R/new $R/stub",
  "its target removed, and made again": "rm -f $R/stub; sleep 0.3; host B > $R/stub",
  "the directory of its target replaced":
    "mv $R $R.old; mkdir $R; host B > $R/stub; ln -s stub $R/middle; rm -r $R.old",
  "replaced four times in a row":
    "for i in 1 2 3 4; do host B > /etc/new; mv -T /etc/new /etc/resolv.conf; sleep 0.01; done",
};

/** Changes of a target need a link. */
const fits = (kind: string, change: string) => kind !== "a file" || !change.includes("target");

/** What the reader has seen. */
interface Seen {
  seen: string[];
  text: string | null;
}

/**
 * Runs the reader on a host of its own, and changes the host meanwhile. It ends once the command has its own file again,
 * with the domain of the host's new one or another; after a minute in any case.
 *
 * @param how Shell commands before and after the command has started, the domain, and options of `penne run`.
 */
async function follow(
  { make, change, domain = "new", options = [], user = false, wait = 0 }: {
    make: string;
    change: string;
    domain?: string;
    options?: string[];
    user?: boolean;
    wait?: number;
  },
): Promise<Seen & { stderr: string; mounts: string }> {
  const directory = Deno.makeTempDirSync({ prefix: "penne-own-" });
  Deno.chmodSync(directory, 0o777);
  const reader = ["python3", `${directory}/reader.py`, directory];
  const command = [penne(), "run", ...options, "--", ...reader].map((word) => `'${word}'`);
  const line = (user ? [...asUser(["env", "HOME=/"]), ...command] : command).join(" ");
  // The host's directories are in memory; what is executed and read is bound into them.
  const script = `set -e
    D=${directory}; R=/mnt/r; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w $R
    mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc
    host() { printf 'nameserver 203.0.113.99\\nsearch %s.example\\n' $([ $1 = A ] && echo old || echo new); }
    exchange() { python3 -c 'import ctypes, sys; a, b = (w.encode() for w in sys.argv[1:])
if ctypes.CDLL(None).renameat2(-100, a, -100, b, 2): sys.exit(1)' $1 $2; }
    cp ${ROOT}tests/views/lab/reader.py $D; rm -f /etc/resolv.conf; : > $D/out
    ${make}
    mounts() { awk '$5 ~ "^/(etc|mnt|proc|sys|dev)(/|$)"' /proc/self/mountinfo; }
    mounts > $D/before
    ${line} > $D/out 2> $D/err &
    until grep -q ready $D/out || ! kill -0 $!; do sleep 0.01; done
    P=$!
    own() {
      for i in $(seq 6000); do
        : > $D/ask; while [ -e $D/ask ] && kill -0 $P; do sleep 0.01; done
        case $(cat $D/now) in own*" $1.example") break;; esac
      done
    }
    sleep ${wait}
    { ${change}; }
    own ${domain}; touch $D/stop; wait $P || true
    mounts | diff $D/before - && echo same`;
  const { stdout, stderr } = await sh(["unshare", "-m", "--propagation", "private", "bash", "-c", script], {
    cwd: "/",
  });
  const [out, err] = ["out", "err"].map((name) => Deno.readTextFileSync(`${directory}/${name}`));
  Deno.removeSync(directory, { recursive: true });
  const last = out!.trim().split("\n").at(-1)!;
  if (!last.startsWith("{")) throw new Error(`${out}${err}${stderr}`);
  return { ...JSON.parse(last), stderr: err + stderr, mounts: stdout.trim() };
}

const NO_SERVER =
  "penne: warning: /etc/resolv.conf names no name server, and none listens on this machine: no names are found\n";
for (const [kind, make] of Object.entries(KINDS)) {
  test(
    `/etc/resolv.conf stays the command's own while the host's, ${kind}, is changed in every way`,
    NEEDS,
    async (t) => {
      const changes = Object.entries(CHANGES).entries().filter(([, [change]]) => fits(kind, change));
      const next = async (): Promise<void> => {
        const { value } = changes.next();
        if (!value) return;
        const [i, [change, commands]] = value;
        await atOnce(t, change, async () => {
          // Some at once, some later, when another means tells of changes.
          const at = i + Object.keys(KINDS).indexOf(kind);
          const { seen, text, stderr, mounts } = await follow({
            make,
            change: commands,
            user: at % 4 > 1,
            wait: at % 2 ? 0.6 : 0,
          });
          assertEquals(stderr, kind.includes("nowhere") ? NO_SERVER : "");
          assertEquals(text, "nameserver 169.254.1.1\nsearch new.example\n");
          assertEquals(seen.at(-1), "own");
          assertEquals(mounts, "same", "the mounts of the host are as before");
        });
        await next();
      };
      await Promise.all([next(), next(), next()]); // three at a time, each on a host of its own
    },
  );
}

test("It stays with other options and namespaces too", NEEDS, async (t) => {
  const own = "nameserver 169.254.1.1\nsearch new.example\n";
  const cases: [options: string[], user: boolean, text: string][] = [
    [["--dns", "192.0.2.9"], true, "nameserver 192.0.2.9\nsearch new.example\n"],
    [["--dns", "192.0.2.9", "--search", "x.example"], false, "nameserver 192.0.2.9\nsearch x.example\n"],
    [["--no-init"], true, own],
    [["--no-init", "--unshare", "mnt,pid,net"], false, own],
    [["--unshare", "mnt,net"], false, own],
    [["--unshare", "user,mnt,net"], true, own],
    [["--map", "auto", "--uid", "5", "--gid", "5"], true, own],
  ];
  const change = `${CHANGES["replaced by rename"]}; sleep 0.3; ${CHANGES["exchanged"]}`;
  for (const [options, user, text] of cases) {
    await t.step(`${options.join(" ")}${user ? ", as a user" : ""}`, async () => {
      const domain = /(\w+)\.example\n/.exec(text)![1]!;
      const result = await follow({ make: KINDS["a file"]!, change, domain, options, user });
      assertEquals([result.text, result.stderr], [text, ""]);
    });
  }
});

test("It stays through many replacements in a row, and nothing is used up", NEEDS, async () => {
  const many = "for i in $(seq 300); do host B > /etc/new; mv -T /etc/new /etc/resolv.conf; done";
  const count = 'P=$(pgrep -n -f "^[^ ]*penne run -- python3 $D"); ls /proc/$P/fd | wc -l >> $D/fds';
  // What a replacement has opened is closed a moment after the file is back.
  const same =
    `for i in $(seq 300); do ${count}; [ $(tail -n 1 $D/fds) -gt $(head -n 1 $D/fds) ] || break; sed -i '$d' $D/fds; sleep 0.1; done`;
  const change = `${
    CHANGES["replaced by rename"]
  }; own new; sleep 1; ${count}; ${many}; own new; ${same}; ${count}; cat $D/fds >&2`;
  const { text, stderr } = await follow({ make: KINDS["a file"]!, change });
  const counts = stderr.trim().split("\n").map(Number);
  assertEquals(text, "nameserver 169.254.1.1\nsearch new.example\n");
  assert(counts.at(-1)! <= counts[0]!, `${counts}`);
});

/** Waits for the command's own file, in a shell. */
const OWN = "own() { for i in $(seq 3000); do ! grep -qs 169.254.1.1 /etc/resolv.conf || break; sleep 0.02; done; }";

/** Runs a shell script inside, which may use `replace` to have the host's file replaced, and returns what it prints. */
async function inside(script: string, make = KINDS["a file"]!): Promise<string> {
  const directory = Deno.makeTempDirSync({ prefix: "penne-own-" });
  Deno.chmodSync(directory, 0o777);
  const replace = `replace() { echo > ${directory}/go; while [ -e ${directory}/go ]; do sleep 0.02; done; own; }`;
  const outer = `set -e
    R=/mnt/r; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w $R
    mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc
    host() { printf 'nameserver 203.0.113.99\\nsearch %s.example\\n' $([ $1 = A ] && echo old || echo new); }
    rm -f /etc/resolv.conf; ${make}
    "$0" run -- sh -c "$1" & p=$!
    while kill -0 $p 2>/dev/null; do
      sleep 0.02; [ ! -e ${directory}/go ] || { host B > /etc/new; mv -T /etc/new /etc/resolv.conf; rm ${directory}/go; }
    done`;
  const argv = [
    "unshare",
    "-m",
    "--propagation",
    "private",
    "bash",
    "-c",
    outer,
    penne(),
    `${OWN}\n${replace}\n${script}`,
  ];
  const { stdout, stderr } = await sh(argv, { cwd: "/" });
  Deno.removeSync(directory, { recursive: true });
  assertEquals(stderr, "");
  return stdout;
}

test("What a process inside does to the mount is left alone", NEEDS, async (t) => {
  const show = "cut -d' ' -f2 /etc/resolv.conf | head -1";
  await t.step("it unmounts the file, and mounts others elsewhere", async () => {
    const script = `umount /etc/resolv.conf; sleep 0.5; ${show}; mount -t tmpfs none /mnt; sleep 0.5; ${show}`;
    assertEquals(await inside(script), "203.0.113.99\n203.0.113.99\n");
  });
  await t.step("it mounts another file over it", async () => {
    const script = `echo nameserver 192.0.2.77 > /tmp/x$$; mount --bind /tmp/x$$ /etc/resolv.conf; rm /tmp/x$$; ${show}
      sleep 0.5; ${show}`;
    assertEquals(await inside(script), "192.0.2.77\n192.0.2.77\n");
  });
  await t.step("it replaces the file itself: then it is the host", async () => {
    const script =
      `umount /etc/resolv.conf; echo nameserver 203.0.113.1 >/etc/n; mv /etc/n /etc/resolv.conf; own; ${show}`;
    assertEquals(await inside(script), "169.254.1.1\n");
  });
  await t.step("the host replaces its file", async () => {
    assertEquals(await inside(`${show}; replace; ${show}; replace; ${show}`), "169.254.1.1\n".repeat(3));
  });
});

test(
  "Where the host has no /etc/resolv.conf, penne says so, and mounts the command's own once there is one",
  NEEDS,
  async () => {
    const directory = Deno.makeTempDirSync({ prefix: "penne-own-" });
    const script = `set -e; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w
    mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc; rm -f /etc/resolv.conf
    "$0" run -- sh -c 'cat /etc/resolv.conf || echo none; echo > ${directory}/go; ${OWN}; own; cat /etc/resolv.conf' & p=$!
    until [ -e ${directory}/go ]; do sleep 0.02; done; echo search late.example > /etc/resolv.conf; wait $p`;
    const { stdout, stderr } = await sh(["unshare", "-m", "--propagation", "private", "bash", "-c", script, penne()]);
    Deno.removeSync(directory, { recursive: true });
    assertEquals(stdout, "none\nnameserver 169.254.1.1\nsearch late.example\n", stderr);
    assertStringIncludes(stderr, "no /etc/resolv.conf of its own: the host has none, so there is no place for it");
  },
);

test(
  "A program's commands keep their own files too, and nothing keeps the program alive afterwards",
  NEEDS,
  async () => {
    const program = `
    import { spawn } from "${ROOT}mod/mod.ts";
    const script = \`own() { until grep -q "search $1" /etc/resolv.conf && grep -q nameserver /etc/resolv.conf; do sleep 0.02; done
      cat /etc/resolv.conf; echo > $D/$1; }; own a; own b; own c\`;
    using child = spawn({ command: ["sh", "-c", script.replaceAll("$D", Deno.args[0])], net: "tap" });
    const { code } = await child.status;
    console.log(code);
    spawn({ command: ["true"], net: "tap" }).end();`;
    const directory = Deno.makeTempDirSync({ prefix: "penne-own-" });
    Deno.writeTextFileSync(`${directory}/program.ts`, program);
    const script = `set -e; D=${directory}; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w
    mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc
    rm -f /etc/resolv.conf; echo search a.example > /etc/resolv.conf
    "$0" run -A --no-check --config ${ROOT}deno.json $D/program.ts $D & p=$!
    until [ -e $D/a ]; do sleep 0.02; done; echo search b.example > /etc/new; mv /etc/new /etc/resolv.conf
    until [ -e $D/b ]; do sleep 0.02; done; echo search c.example > /etc/resolv.conf
    wait $p`;
    const argv = ["unshare", "-m", "--propagation", "private", "bash", "-c", script, Deno.execPath()];
    const { stdout, stderr } = await sh(argv, { cwd: ROOT });
    Deno.removeSync(directory, { recursive: true });
    const conf = (domain: string) => `nameserver 169.254.1.1\nsearch ${domain}.example\n`;
    assertEquals(stdout, `${conf("a")}${conf("b")}${conf("c")}0\n`, stderr);
  },
);
