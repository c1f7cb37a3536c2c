// deno task refusals: makes hosts that refuse something in software emulation, as root, and tries the fixes that penne prints.
//
//   [GUEST…]    "AppArmor and settings", SELinux, lockdown; all of them by default
//   --outputs   print what each host printed

import { DEBIAN, OTHERS } from "./guests.ts";
import { tryHosts } from "./host.ts";

/** Seconds for a guest. */
const LIMIT = 1800;

if (import.meta.main) {
  const names = Deno.args.filter((word) => word !== "--outputs");
  const guests = [DEBIAN, ...OTHERS].filter(({ name }) => !names.length || names.includes(name));
  if (!guests.length) throw new Error(`there is no guest ${names.join(", ")}`);
  let wrong = 0;
  for (const guest of guests) {
    const { faults, outputs } = await tryHosts(guest, LIMIT, (line) => console.error(`${guest.name}: ${line}`));
    if (Deno.args.includes("--outputs")) console.log(outputs.join("\n"));
    for (const fault of faults) console.log(`FAULT: ${fault}`);
    console.log(`${guest.name}: ${guest.hosts.length} hosts, ${faults.length} faults`);
    wrong += faults.length;
  }
  Deno.exit(wrong ? 1 : 0);
}
