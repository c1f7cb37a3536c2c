// `penne pasta`, and penne under the name pasta: reads the command line, and loads the code for what it asks for.

import { orNull } from "../../../ffi/core/errno.ts";
import { self } from "../../../ffi/core/task.ts";
import { VERSION } from "../../base/version.ts";
import { portRange } from "../../datapath/netif/tcp_ports.ts";
import { getLink } from "../../netlink/link.ts";
import { NetlinkSocket } from "../../netlink/socket.ts";
import { readPastaCommandLine } from "../../pasta/config.ts";
import { LINK_OPTION } from "../common/link_option.ts";
import { say } from "../common/output.ts";

/** What `--version` says, in lines. */
const VERSION_TEXT = `pasta ${VERSION} (penne)
penne ${VERSION}, which has the command line of pasta(1), <https://passt.top>
`;

/** Whether an interface of the host has a name. */
function hasInterface(name: string): boolean {
  using socket = new NetlinkSocket(self);
  return orNull(() => socket.get(getLink(name))) !== null;
}

/**
 * Does what a command line of pasta(1) asks for.
 *
 * @param args The words after the program's name, or after `pasta`.
 * @param name The name of the program if it stands for the command, else null.
 * @returns The exit code.
 */
export async function start(args: readonly string[], name: string | null = null): Promise<number> {
  const hidden = `--${LINK_OPTION}=`;
  const link = args[0]?.startsWith(hidden) ? args[0].slice(hidden.length) : undefined;
  const words = link === undefined ? args : args.slice(1);
  const config = readPastaCommandLine(words, {
    program: name ?? "pasta",
    version: VERSION_TEXT,
    hasInterface,
    get ephemeral() {
      return portRange();
    },
  });
  if ("code" in config) {
    if (config.stdout) say(Deno.stdout, config.stdout);
    if (config.stderr) say(Deno.stderr, config.stderr);
    return config.code;
  }
  const job = { config, word: name === null ? "pasta" : null, args: words, link, head: `pasta ${VERSION} (penne)` };
  if (config.target.kind === "command") return (await import("./command.ts")).run(job);
  return (await import("./serve.ts")).serve(job);
}
