// Attaching from a program: what a failure leaves behind.

import { assertEquals, assertThrows } from "@std/assert";
import { Attachments } from "../../mod/attach/attach.ts";
import { parseTarget } from "../../mod/netns/target.ts";
import { Reactor } from "../../mod/reactor/reactor.ts";
import { command, sh, test, until } from "../lib/helpers.ts";

test(
  "a server that refuses a tap leaves no interface",
  ["root", "tun", "package:util-linux", "package:iproute2"],
  async () => {
    const child = command(["unshare", "--net", "sleep", "100"], {}, { stdout: "null" }).spawn();
    try {
      const own = Deno.readLinkSync("/proc/self/ns/net");
      await until("it has its namespace", () => Deno.readLinkSync(`/proc/${child.pid}/ns/net`) !== own);
      using reactor = new Reactor();
      const server = {
        serve: () => {
          throw new Error("refused");
        },
        [Symbol.dispose]() {},
      };
      using attachments = new Attachments(reactor, server);
      assertThrows(() => attachments.add([parseTarget(`${child.pid}`)]), Error, "refused");
      const { stdout } = await sh(["nsenter", "-t", `${child.pid}`, "-n", "ip", "-j", "link"]);
      assertEquals(JSON.parse(stdout).map(({ ifname }: { ifname: string }) => ifname), ["lo"]);
    } finally {
      child.kill("SIGKILL");
      await child.status;
    }
  },
);
