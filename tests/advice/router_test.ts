// Router advertisements: the kernel and rdisc6 against penne.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { sh, test } from "../lib/helpers.ts";
import { must } from "../lib/netlab.ts";
import { AdviceLab, bringUp, DEVICE } from "./lab.ts";

const needs = ["root", "tun", "package:iproute2"] as const;

/** Makes link-local addresses usable at once, and the kernel take advertisements for itself or not. */
async function prepare(netns: string, accepts: boolean): Promise<void> {
  const conf = `/proc/sys/net/ipv6/conf/${DEVICE}`;
  const script = `echo 0 >${conf}/accept_dad && echo ${accepts ? 1 : 0} >${conf}/accept_ra`;
  await must(["nsenter", `--net=/run/netns/${netns}`, "--", "sh", "-c", script]);
  await bringUp(netns);
}

test(
  "the kernel configures IPv6 by advertisements: a prefix, an address in it, the default route of a configured one, and the MTU",
  needs,
  async () => {
    await using advice = await AdviceLab.open();
    const { lab } = advice;
    await lab.ip(lab.host, "route", "replace", "default", "via", "fe80::1", "dev", DEVICE);
    const [netns, set] = await Promise.all([advice.blank(["--mtu", "1400"]), advice.configured(["--mtu", "1400"])]);
    await prepare(netns, true);
    const wanted = await advice.setup(set, 6);
    assertEquals(wanted.routes, ["2001:db8::/64 ", "default fe80::1"]);
    let found = await advice.setup(netns, 6);
    const end = performance.now() + 60_000;
    while (!(found.addresses.length > 0 && found.routes.length > 1) && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      found = await advice.setup(netns, 6);
    }
    assertEquals([found.routes, found.mtu], [wanted.routes, 1400]);
    const [address = ""] = found.addresses;
    assert(address.startsWith("2001:db8:") && address.endsWith("/64"), address);
  },
);
