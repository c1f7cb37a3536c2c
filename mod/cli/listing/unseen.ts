// What a list of namespaces could not see, in the log.

import type { Listing } from "../../list/listing.ts";
import { log } from "../report/log.ts";

function count(number: number, one: string, many: string): string[] {
  return number === 0 ? [] : [`${number} ${number === 1 ? one : many}`];
}

/**
 * Logs what a list could not see.
 *
 * @param listing The list.
 */
export function tellUnseen({ complete, unseen }: Listing): void {
  const { processes, descriptors, sockets, owners, hidden } = unseen;
  const parts = [
    ...count(processes, "process", "processes"),
    ...count(descriptors, "table of descriptors", "tables of descriptors"),
    ...count(sockets, "socket", "sockets"),
    ...count(owners, "owner of a namespace", "owners of namespaces"),
    ...hidden ? ["what /proc hides (hidepid=)"] : [],
  ];
  if (parts.length === 0) return;
  const what = `could not look at ${parts.join(", ")}`;
  if (complete) log().info(`${what}: all namespaces are listed, but not all that is in them`);
  else log().warn(`${what}: namespaces that only those hold are missing`);
}
