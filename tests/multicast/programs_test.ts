// Programs that exchange datagrams in all the ways that are not one question and one answer: inside it is as on the host.

import { assertEquals, assertMatch } from "@std/assert";
import { FollowLab } from "../cli/follow/lab.ts";
import { sh, test, until } from "../lib/helpers.ts";
import { hasPort, must } from "../lib/netlab.ts";
import { NEEDS, untilAsync } from "./lab.ts";

/** A file that takes some 100 packets of TFTP. */
const DATA = crypto.getRandomValues(new Uint8Array(50_000));
/** Addresses of the peer: two of one network, and one of another, by another interface of the host. */
const [SERVER, OTHER, SECOND] = ["192.0.2.7", "192.0.2.8", "10.3.0.1"];

/** The command line of a server of TFTP, which is one of DNS too if it gets addresses. */
function dnsmasq(directory: string, ...addresses: string[]): string[] {
  return [
    ...["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv"],
    ...["--no-hosts", "--enable-tftp", `--tftp-root=${directory}`, "--log-facility=-", "--log-queries"],
    ...addresses.length === 0 ? ["--port=0"] : ["--bind-interfaces", "--address=/multi.test/192.0.2.99"],
    ...addresses.map((address) => `--listen-address=${address}`),
  ];
}

test("TFTP, DNS of several networks, STUN and SSDP are inside as on the host", [
  ...NEEDS,
  "package:curl",
  "package:dnsmasq-base",
  "package:bind9-dnsutils",
  "package:stun-client",
  "package:miniupnpc",
], async () => {
  await using follow = await FollowLab.open();
  const { lab } = follow;
  for (const address of [SERVER, OTHER]) await lab.ip(lab.peer, "addr", "add", `${address}/24`, "dev", "down0");
  await follow.secondNetwork();
  const directory = await Deno.makeTempDir();
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  await Deno.chmod(directory, 0o755);
  await Deno.writeFile(`${directory}/data`, DATA);
  const served = await follow.run(false, "--udp-ports", "6969:69");
  const where = {
    host: (argv: string[]) => lab.in(lab.host, argv),
    inside: (argv: string[]) => follow.inside(served, argv),
    peer: (argv: string[]) => lab.in(lab.peer, argv),
  };

  /** Gets the file. */
  const getFile = async (place: keyof typeof where, url: string) => {
    const file = `${directory}/${place}`;
    await must(where[place](["curl", "--silent", "--show-error", "--max-time", "300", "--output", file, url]));
    assertEquals(await Deno.readFile(file), DATA, `${url} as ${place} gets it`);
  };
  const server = lab.start(where.peer(dnsmasq(directory, SERVER, OTHER, SECOND)));
  await hasPort(server, "udp", 69);
  for (const place of ["host", "inside"] as const) await getFile(place, `tftp://${SERVER}/data`);
  // The server is inside, and answers from a port that is not open.
  await hasPort(lab.start(where.inside(dnsmasq(directory))), "udp", 69);
  await getFile("peer", "tftp://192.0.2.2:6969/data");

  for (const [address, source] of [[SERVER, "192.0.2.2"], [OTHER, "192.0.2.2"], [SECOND, "10.3.0.2"]]) {
    for (const place of ["host", "inside"] as const) {
      const name = `${place}.${address}.multi.test`;
      const dig = ["dig", "+short", "+notcp", "+tries=10", `@${address}`, name];
      assertEquals(await must(where[place](dig)), "192.0.2.99\n", dig.join(" "));
      await until(`${name} is logged`, () => server.errors().includes(`query[A] ${name} from`));
      assertEquals(server.errors().split(`query[A] ${name} from `)[1]!.split("\n")[0], source);
    }
  }

  for (const args of [["stun", SERVER!, OTHER!], ["ssdp", "down0", SERVER!]]) {
    const other = lab.start(where.peer(["python3", `${import.meta.dirname}/servers.py`, ...args]));
    await until(`the server of ${args[0]} is ready: ${other.errors()}`, () => other.output().includes("ready"));
  }
  const exchange = async (place: "host" | "inside") => {
    // Answers come from the address that was asked, another one, and another port; it ends with 1.
    await untilAsync(`${place} has no translation of addresses`, async () => {
      const { stdout } = await sh(where[place](["stun", SERVER!]));
      assertMatch(stdout, /^Primary:/m);
      return /^Primary: Open/m.test(stdout);
    });
    await untilAsync(`${place} finds a device`, async () => {
      const { stdout } = await sh(where[place](["upnpc", "-s"]));
      assertMatch(stdout, /UPnP|UPNP/i);
      return stdout.includes(` desc: http://${SERVER}:9/root.xml`);
    });
  };
  await Promise.all([exchange("host"), exchange("inside")]);
});
