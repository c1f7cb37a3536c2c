// Lists all namespaces that exist, also those without a task, once and without watching.

import { Mapping } from "../../../ffi/core/mapping.ts";
import { withKernelBtf } from "../../bpf/kernel_btf.ts";
import { runCode } from "../../bpf/load.ts";
import { type Namespace, SLOTS, slotType } from "../facts/contract.ts";
import { resolveLayout } from "./layout.ts";
import { namespaces } from "./list.ts";
import { createMemory, LIST } from "./maps.ts";
import { Plan } from "./pieces.ts";

/**
 * Runs the program that lists namespaces, and reads what it has written.
 *
 * @param plan What it is generated for; its maps and filter do not count.
 * @returns The namespaces; null if the kernel has no lists of them, before Linux 6.18.
 * @throws {SysError} If the kernel refuses the program.
 */
export function listBy(plan: Plan): Namespace[] | null {
  using list = createMemory("penne_list", LIST.SIZE);
  const code = namespaces(plan, list.number);
  if (code === null) return null;
  runCode(code, "penne_list");
  using mapping = new Mapping(list, LIST.SIZE);
  const view = new DataView(mapping.memory());
  return Array.from({ length: view.getUint32(LIST.COUNT, true) }, (_, i) => {
    const at = LIST.ENTRIES + 16 * i;
    return {
      type: slotType(SLOTS[view.getUint32(at, true)]!),
      inum: view.getUint32(at + 4, true),
      id: `${view.getBigUint64(at + 8, true)}`,
    };
  });
}

/** In place of maps that the program does not use. */
const NO_MAP = { number: -1 } as const;

/**
 * Lists all namespaces.
 *
 * @returns The namespaces, of which some may have ended since; null if the kernel has no lists of them.
 * @throws {SysError} If bpf(2) is refused, or the kernel has no BTF.
 * @throws {PenneError} If the kernel's BTF lacks something.
 */
export function listAll(): Namespace[] | null {
  const layout = withKernelBtf((types) => resolveLayout(types));
  return listBy(new Plan(layout, {}, { ring: NO_MAP, control: NO_MAP, storage: NO_MAP, trees: null }, 0));
}
