// Port specifications and rules: what pasta(1) makes of each, and texts that are none.

import "../lib/preload.ts";
import { assertEquals, assertThrows } from "@std/assert";
import { AF } from "../../ffi/net/constants.ts";
import { addRule, formatRule, type ForwardingRule, RuleError, type RuleLimits } from "../../mod/forward/rule.ts";
import { parsePortSpec, rulesOf, SpecError } from "../../mod/forward/spec.ts";
import { test } from "../lib/helpers.ts";

const BOTH: RuleLimits = { families: { [AF.INET]: true, [AF.INET6]: true }, protocols: { TCP: true, UDP: true } };
const EPHEMERAL = [32768, 60999] as const;

/** The rules of some specifications as pasta shows them, or the lines that it refuses them with. */
function show(texts: string[], limits = BOTH): string[] {
  const rules: ForwardingRule[] = [];
  try {
    for (const text of texts) {
      const spec = parsePortSpec(text);
      if (spec) { for (const rule of rulesOf(spec, "TCP", EPHEMERAL)) addRule(rules, rule, limits); }
    }
  } catch (error) {
    if (error instanceof SpecError || error instanceof RuleError) return error.message.split("\n");
    throw error;
  }
  return rules.map((rule) => formatRule(rule).slice(4));
}

/** What `pasta -t SPEC` of October 2026 shows with --debug. */
const SHOWN: Record<string, string[]> = {
  "8080": ["[*]:8080  =>  8080 "],
  "8080:80": ["[*]:8080  =>  80 "],
  "8080-8082:80-82": ["[*]:8080-8082  =>  80-82 "],
  "8080-8081:90": ["Invalid port specifier '8080-8081:90'"],
  "~8080": [
    "[*]:1-8079  =>  1-8079  (best effort)",
    "[*]:8081-32767  =>  8081-32767  (best effort)",
    "[*]:61000-65535  =>  61000-65535  (best effort)",
  ],
  "all,~1-65000": ["[*]:65001-65535  =>  65001-65535  (best effort)"],
  "all": ["[*]:1-32767  =>  1-32767  (best effort)", "[*]:61000-65535  =>  61000-65535  (best effort)"],
  "all,auto": [
    "[*]:1-32767  =>  1-32767  (best effort) (auto-scan)",
    "[*]:61000-65535  =>  61000-65535  (best effort) (auto-scan)",
  ],
  "all,80": ["[*]:80  =>  80 "],
  "auto,8080": ["[*]:8080  =>  8080  (auto-scan)"],
  "8080,auto,~1-100": ["[*]:8080  =>  8080  (auto-scan)"],
  "80-90:180-190,~85": ["[*]:80-84  =>  180-184 ", "[*]:86-90  =>  186-190 "],
  "80,~80": [],
  "8080,8081:9000": ["[*]:8080  =>  8080 ", "[*]:8081  =>  9000 "],
  "127.0.0.1/8080": ["[127.0.0.1]:8080  =>  8080 "],
  "[127.0.0.1]/8080": ["[127.0.0.1]:8080  =>  8080 "],
  "::1/8080": ["[::1]:8080  =>  8080 "],
  "[::1]/8080": ["[::1]:8080  =>  8080 "],
  "*/8080": ["[*]:8080  =>  8080 "],
  "/8080": ["[*]:8080  =>  8080 "],
  "%lo/8080": ["[*]%lo:8080  =>  8080 "],
  "*%lo/8080": ["[*]%lo:8080  =>  8080 "],
  "127.0.0.1%lo/8080": ["[127.0.0.1]%lo:8080  =>  8080 "],
  "127.0.0.1/8080:192.0.2.5/80": ["[127.0.0.1]:8080  =>  192.0.2.5:80 "],
  "[::]/80-81:fd00::2/90-91": ["[::]:80-81  =>  fd00::2:90-91 "],
  "8080:fd00::2/80": ["[8080:fd00::2]:80  =>  80 "],
  "0.0.0.0/8080:0.0.0.0/80": ["[0.0.0.0]:8080  =>  80 "],
  "0.0.0.0/8080-8081:127.0.0.1": ["[0.0.0.0]:8080-8081  =>  127.0.0.1:8080-8081 "],
  " 8080": ["[*]:8080  =>  8080 "],
  "+8080": ["[*]:8080  =>  8080 "],
  "08080": ["[*]:8080  =>  8080 "],
  "80- 90": ["[*]:80-90  =>  80-90 "],
  "none": [],
  "8080:127.0.0.1": [
    "Dual stack forward to IPv4 address 127.0.0.1 unsupported",
    "Did you mean 0.0.0.0/... instead?",
    "Unable to add rule TCP [*]:8080  =>  127.0.0.1:8080 ",
  ],
  "8080:[fd00::2]/80": [
    "Dual stack forward to IPv6 address fd00::2 unsupported",
    "Did you mean [::]/... instead?",
    "Unable to add rule TCP [*]:8080  =>  fd00::2:80 ",
  ],
  "0.0.0.0/8080:fd00::2/80": [
    "Forward from IPv4 (0.0.0.0) to IPv6 (fd00::2) unsupported",
    "Unable to add rule TCP [0.0.0.0]:8080  =>  fd00::2:80 ",
  ],
  "0": ["Forwarding rule attempts to map from port 0", "Unable to add rule TCP [*]:0  =>  0 "],
  "8080:0": ["Forwarding rule attempts to map to port 0", "Unable to add rule TCP [*]:8080  =>  0 "],
  "80-90,85": [
    "Forwarding configuration conflict: TCP [*]:85  =>  85  versus TCP [*]:80-90  =>  80-90 ",
    "Unable to add rule TCP [*]:85  =>  85 ",
  ],
  "127.0.0.1/none": ["Invalid port specifier 'none'"],
  "127.0.0.1/80-": ["Invalid port specifier '80-'"],
  "8080/tcp": ["Invalid port specifier '8080/tcp'"],
};

const INVALID = [
  ["65536", "8080-8079", "", ",", "8080,", "all,none", "none,80", "auto:9", "~8080:9", "~", "~~80", "ALL", "Auto"],
  ["80:81:82", "80 -90", "-80", "80-", "8080 ", "x/80", "lo/80", "%/80", "127.0.0.1%/80", "%abcdefghijklmnopq/80"],
  ["[*]/80", "0.0.0.0/8080-8081:127.0.0.1/90", "0.0.0.0/8080:127.0.0.1/90-91", "81:~9", "8080:/80", "80,,81", "all:x"],
].flat();

test("each specification means what pasta makes of it", () => {
  for (const [text, rules] of Object.entries(SHOWN)) assertEquals(show([text]), rules, text);
});

test("what is no specification is refused in pasta's words", () => {
  for (const text of INVALID) {
    const { message } = assertThrows(() => parsePortSpec(text), SpecError);
    const ports = text.slice(/^0\.0\.0\.0\//.exec(text)?.[0].length ?? 0);
    assertEquals(message, `Invalid port specifier '${ports}'`);
  }
});

test("rules that claim the same port are refused, and others are not", () => {
  const conflicts = [["80", "127.0.0.1/80"], ["80:81", "80:82"], ["0.0.0.0/80", "127.0.0.1/80"], ["%lo/80", "80"]];
  for (const texts of conflicts) {
    assertEquals(show(texts)[0]!.slice(0, 34), "Forwarding configuration conflict:", `${texts}`);
  }
  const pairs = [["127.0.0.1/80", "192.0.2.1/80"], ["0.0.0.0/80", "::/80"], ["80", "81"], ["none", "80"], [
    "%lo/80",
    "%eth0/80",
  ]];
  for (const texts of pairs) assertEquals(show(texts).every((line) => line.startsWith("[")), true, `${texts}`);
});

test("a rule for both families becomes one for the family that is on", () => {
  const only = (family: 4 | 6) => ({ ...BOTH, families: { [AF.INET]: family === 4, [AF.INET6]: family === 6 } });
  assertEquals(show(["80"], only(4)), ["[0.0.0.0]:80  =>  80 "]);
  assertEquals(show(["80"], only(6)), ["[::]:80  =>  80 "]);
  // It is that before it is checked: with one family, a target says nothing that is unclear.
  assertEquals(show(["80:192.0.2.5/81"], only(4)), ["[0.0.0.0]:80  =>  192.0.2.5:81 "]);
  assertEquals(show(["80:[fd00::2]/81"], only(6)), ["[::]:80  =>  fd00::2:81 "]);
  assertEquals(show(["80:[fd00::2]/81"], only(4)), [
    "Forward from IPv4 (0.0.0.0) to IPv6 (fd00::2) unsupported",
    "Unable to add rule TCP [0.0.0.0]:80  =>  fd00::2:81 ",
  ]);
  assertEquals(show(["::1/80"], only(4)), [
    "IPv6 forward, but IPv6 not enabled",
    "Unable to add rule TCP [::1]:80  =>  80 ",
  ]);
  assertEquals(
    show(["80"], { ...BOTH, protocols: { TCP: false, UDP: true } })[0],
    "Can't add TCP forwarding rule, TCP not enabled",
  );
});
