// Requests about ports, and the errors of those that were not carried out.

import { PenneError } from "../base/errors.ts";
import { portError } from "../forward/open.ts";
import type { PortRequest } from "../forward/request.ts";
import { formatRule, type ForwardingRule } from "../forward/rule.ts";
import { type PortRule, ruleFromJson, ruleToJson } from "../forward/rule_json.ts";
import type { ChangeRequest, JsonFailure, Request } from "./message.ts";

/** The rules of a request as they are sent. */
function sent({ rules, outward }: Pick<PortRequest, "rules" | "outward">): ChangeRequest {
  return { rules: rules.map(ruleToJson), outward: outward.map(ruleToJson) };
}

/**
 * The request that opens ports.
 *
 * @param ports The ports.
 * @returns The request.
 */
export function addRequest(ports: Pick<PortRequest, "rules" | "outward" | "freebind">): Request {
  return { call: "ports.add", ...sent(ports), freebind: ports.freebind };
}

/**
 * The request that closes ports.
 *
 * @param ports The ports.
 * @returns The request.
 */
export function deleteRequest(ports: Pick<PortRequest, "rules" | "outward">): Request {
  return { call: "ports.delete", ...sent(ports) };
}

/**
 * A rule as it is shown: one of ports inside ends with `(out)`.
 *
 * @param rule The rule.
 * @param outward Whether it is one of ports inside.
 * @returns One line without its end.
 */
export function showRule(rule: ForwardingRule, outward: boolean): string {
  return `${formatRule(rule).trimEnd()}${outward ? "  (out)" : ""}`;
}

/**
 * A rule that is served, as it is shown.
 *
 * @param served The rule.
 * @returns One line without its end.
 */
export function showServed(served: PortRule): string {
  const rule = ruleFromJson(served);
  if (!rule) return JSON.stringify(served);
  const some = served.open < rule.last - rule.first + 1 ? `  (${served.open} open)` : "";
  return `${showRule(rule, served.outward)}${some}`;
}

/**
 * The error for a namespace that no penne serves which the caller may ask.
 *
 * @param target The namespace as the user calls it.
 * @returns The error, to be thrown.
 */
export function notServed(target: string): PenneError {
  return new PenneError(`find a penne that serves "${target}": there is none that you may ask`, {
    hints: ["penne run and penne attach answer to the user who started them, and to root"],
  });
}

/** How a penne is started so that what it refuses is possible. */
export interface Remedies {
  /** So that ports inside can be added. */
  readonly unheld: string;
  /** So that listeners inside are looked for. */
  readonly unfollowed: string;
}

const ON_COMMAND_LINE: Remedies = {
  unheld: "start it with a port of any kind, as in -t 8080 or -T 8080; penne attach also without --no-quit",
  unfollowed: "start it with --tcp-ports auto or --udp-ports auto",
};

/**
 * The error for a request that was not carried out.
 *
 * @param failure Why.
 * @param verb What was to be done with ports.
 * @param remedies How it would have been possible; on the command line by default.
 * @returns The error, to be thrown.
 */
export function failureError(
  failure: JsonFailure,
  verb: "add" | "delete",
  remedies: Remedies = ON_COMMAND_LINE,
): PenneError {
  const what = `${verb} ports`;
  const rule = "rule" in failure ? ruleFromJson(failure.rule) : null;
  if (failure.kind === "request" || !rule) {
    return new PenneError(`${what}: penne refuses the request: ${"reason" in failure ? failure.reason : failure.kind}`);
  }
  const shown = showRule(rule, failure.inside);
  switch (failure.kind) {
    case "port":
      return portError({ rule, port: failure.port, errno: failure.errno }, failure.inside);
    case "rule":
      return new PenneError(`${what}: ${failure.reason}`);
    case "absent":
      return new PenneError(`${what}: there is no rule ${shown}`, {
        hints: ["a rule is deleted as it was added: penne ports ls shows the rules"],
      });
    case "unheld":
      return new PenneError(`${what}: ${shown} is a port inside, and this penne holds nothing there`, {
        hints: [remedies.unheld],
      });
    default:
      return new PenneError(`${what}: ${shown} follows the listeners inside, which this penne does not look for`, {
        hints: [remedies.unfollowed],
      });
  }
}
