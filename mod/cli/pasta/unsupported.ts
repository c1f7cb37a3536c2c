// What pasta(1) can do and penne cannot yet: refused, where going on would mean something else.

import { F } from "../../../ffi/core/consts.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { PenneError } from "../../base/errors.ts";
import type { PastaConfig } from "../../pasta/request.ts";
import { attemptPasta } from "./files.ts";

/**
 * Refuses what penne cannot do.
 *
 * @param config What the command line asks for.
 * @throws {PenneError} If it asks for that.
 */
export function refuseUnsupported({ fd, target, userns }: PastaConfig): void {
  const refuse = (what: string, reason: string) => {
    throw new PenneError(`use ${what}: ${reason}`);
  };
  if (fd !== null) {
    attemptPasta("Could not move --fd descriptor", () => call(self, "fcntl", fd, F.GETFD));
    refuse("--fd", "penne makes the interface itself");
  }
  if (userns !== null && target.kind === "command") refuse("--userns with a command", "it gets one of its own");
}
