// Keeps a command's files where they are, in any Deno program.

import { pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import type { OwnFiles } from "./own_files.ts";

/**
 * Keeps the files of a command where they are, from the program's event loop.
 *
 * @param files The files, which end with this.
 * @param onWarning Called if that fails.
 * @returns A function that stops.
 */
export function keepUp(files: OwnFiles, onWarning: (message: string) => void = () => {}): () => void {
  const reactor = new Reactor();
  files.follow(reactor, onWarning);
  const pumping = pump(reactor, (error) => onWarning(`the command's files are not kept up to date any more: ${error}`));
  pumping.keep(false); // the command keeps the program, if it is to be kept
  return () => {
    pumping.stop();
    files[Symbol.dispose]();
    reactor[Symbol.dispose]();
  };
}
