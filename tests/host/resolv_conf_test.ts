// resolv.conf is read as the real C library reads it, in every form.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import {
  DEFAULT_SERVER,
  formatResolvConf,
  parseNameServer,
  parseResolvConf,
  scopeOf,
} from "../../mod/host/resolv_conf.ts";
import { formatIp } from "../../mod/inet/ip.ts";
import { ROOT, sh, test } from "../lib/helpers.ts";

/** Addresses of name servers, good and bad. */
const ADDRESSES = [
  ...[
    "192.0.2.1",
    "192.0.2.1;c",
    "192.0.2.1\r",
    "192.0.2.1\v",
    "1.2.3.4x",
    "-1",
    "+1",
    "",
    " ",
    "192.0.2.1 more",
    "ns1",
  ],
  ...["127.1", "0x7f.1", "2130706433", "010.0.0.1", "1.2.65535", "1.2.65536", "08.1.1.1", "1.2.3.", "1.2.3.4.", "0x"],
  ...[
    "0x.1",
    "1..2",
    "256.1",
    "4294967295",
    "4294967296",
    "0",
    "0.0.0.0",
    "255.255.255.255",
    "0X7F.0.0.01",
    "1.2.3.4.5",
  ],
  ...["00", "0377.0xff.255.1", "1.16777215", "1.16777216", ".1", "1.2.3.4\0x"],
  ...[
    "::1",
    "2001:db8::1",
    "2001:DB8::A",
    "::ffff:192.0.2.1",
    "::192.0.2.1",
    "[::1]",
    "::",
    "::1.2.3",
    "1:2:3:4:5:6:7::8",
  ],
  ...["fe80::1", "fe80::1%lo", "fe80::1%1", "fe80::1%01", "fe80::1%4294967295", "fe80::1%4294967296", "fe80::1%nosuch"],
  ...[
    "fe80::1%",
    "fe80::1%0",
    "fe80::1%1x",
    "fe80::1%0x1",
    "fe80::1%-1",
    "fe80::1%lo%1",
    "fe80::1%lo more",
    "febf::1%lo",
  ],
  ...["2001:db8::1%lo", "2001:db8::1%nosuch", "ff02::1%lo", "ff12::1%lo", "ff05::1%lo", "fec0::1%lo", "192.0.2.1%lo"],
  ...["1:2:3:4:5:6:7:8%1x", "fe80::1%lo\r"],
];

/** Whole files, good and bad. */
const FILES = [
  ...[
    "",
    "\n\n",
    "# nothing\n",
    "; nothing\n",
    " # nameserver 192.0.2.1\n",
    "#nameserver 192.0.2.1\n",
    "family inet4\n",
  ],
  ...ADDRESSES.map((address) => `nameserver ${address}\n`),
  ...["nameserver 192.0.2.1", "  nameserver 192.0.2.1\n", "nameserver\t192.0.2.1\n", "nameserver  \t 192.0.2.1\n"],
  ...["NAMESERVER 192.0.2.1\n", "nameserver=192.0.2.1\n", "nameserver\n", "nameserver192.0.2.1\n", "nameserver\r\n"],
  "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
  "nameserver bad\nnameserver 192.0.2.2\nnameserver bad\nnameserver ::1\nnameserver 192.0.2.2\n",
  "nameserver 192.0.2.1\0\nnameserver 192.0.2.2\n",
  ...[
    "search a.example b.example\n",
    "search a.example\nsearch\n",
    "search a.example\nsearch \n",
    " search a.example\n",
  ],
  ...["search a.example\ndomain b.example\n", "domain a.example\nsearch b.example\n", "search a.example\ndomain \n"],
  ...["domain b.example c.example\n", "domain\ta.example\n", "domain  a.example  \n", "domain .\n", "search .\n"],
  ...["search\ta.example\tb.example \n", "search a.example # c\n", "search a.example\r\n", "search a b c d e f g h\n"],
  ...["search a.exa\0mple\n", "search \xe9.example \xc3\xa9.example\n", "search a.example a.example\n"],
  ...["options ndots:3 rotate\n", "options ndots:3\noptions timeout:9\n", "options\n", " options ndots:3\n"],
  ...["options ndots:99 timeout:99 attempts:99\n", "options ndots:3;rotate\n", "options ndots:3 # rotate\n"],
  "options\tno-aaaa trust-ad edns0 use-vc single-request no-tld-query no-reload inet6\n",
  ...["sortlist 192.0.2.0/255.255.255.0 10.0.0.0\n", "sortlist 192.0.2.0\nsortlist 10.0.0.0\n", " sortlist 10.0.0.0\n"],
  ...["sortlist\n", "sortlist 10.0.0.0;11.0.0.0&255.0.0.0\n", "sortlist 10.0.0.0/8\n"],
  "nameserver 192.0.2.1\nsearch a.example\noptions ndots:2\nsortlist 10.0.0.0\nlookup file bind\n",
];

const bytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

/** What the C library reads in each of some files: a list of lines. */
async function glibc(files: readonly string[]): Promise<string[][]> {
  const directory = Deno.makeTempDirSync({ prefix: "penne-resolv-" });
  try {
    files.forEach((text, i) => Deno.writeFileSync(`${directory}/${String(i).padStart(4, "0")}`, bytes(text)));
    const program = `${directory}/glibc`;
    const built = await sh(["gcc", "-O1", "-o", program, `${ROOT}tests/host/glibc.c`, "-lresolv"]);
    assertEquals(built.code, 0, built.stderr);
    const script =
      'hostname box; for f in "$0"/0*; do mount --bind $f /etc/resolv.conf; "$0"/glibc; umount /etc/resolv.conf; echo =; done';
    const argv = ["unshare", "-m", "-u", "--propagation", "private", "sh", "-c", script, directory];
    const { stdout } = await new Deno.Command(argv[0]!, { args: argv.slice(1) }).output();
    const text = String.fromCharCode(...stdout);
    return text.split("=\n").slice(0, -1).map((part) => part.trim().split("\n"));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

test("resolv.conf is read as the C library reads it, and written so that it reads the same", [
  "root",
  "package:gcc",
  "package:hostname",
  "package:util-linux",
], async (t) => {
  const theirs = await glibc(FILES);
  const again = await glibc(FILES.map((text) => formatResolvConf(parseResolvConf(text))));
  assertEquals([theirs.length, again.length], [FILES.length, FILES.length]);
  for (const [i, text] of FILES.entries()) {
    await t.step(JSON.stringify(text), () => {
      const found = parseResolvConf(text).nameservers;
      const ours = (found.length ? found : [DEFAULT_SERVER])
        .map((server) => `server ${formatIp(server.address)} ${scopeOf(server, (name) => name === "lo" ? 1 : 0)}`);
      // The interface of any other address is ignored, so it is not looked up.
      const servers = theirs[i]!.filter((line) => line.startsWith("server"))
        .map((line) => /server (fe[89ab]|ff.2:)/.test(line) ? line : line.replace(/\d+$/, "0"));
      const known = (line: string) => formatIp(parseNameServer(line.split(" ")[1]!)!.address);
      assertEquals(ours, servers.map((line) => `server ${known(line)} ${line.split(" ")[2]}`));
      assertEquals(again[i], theirs[i]);
    });
  }
});
