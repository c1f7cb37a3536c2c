// `penne run` with a network: the command, and the data path, which is a third of the code.

import { openRequestedPorts } from "../forward/open.ts";
import { runNetwork } from "./common/run_network.ts";
import { holdFor } from "../forward/ports.ts";
import { runCommand } from "./run.ts";

/** `penne run`. */
export const start = runCommand((ports) =>
  runNetwork({ hold: holdFor(ports), localOnly: ports.localOnly }, () => openRequestedPorts(ports))
);
