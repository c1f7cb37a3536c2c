// Lists all namespaces that exist, also those without a task, once and without watching.

import type { Fd } from "../../../ffi/core/fd.ts";
import { Mapping } from "../../../ffi/core/mapping.ts";
import { PROGRAM_TYPE, runProgram } from "../../../ffi/sys/bpf.ts";
import { withKernelBtf } from "../../bpf/kernel_btf.ts";
import { loadCode } from "../../bpf/load.ts";
import type { Code } from "../../bpf/instruction.ts";
import { type Namespace, SLOTS, slotType } from "../facts/contract.ts";
import { resolveLayout } from "./layout.ts";
import { namespaces } from "./list.ts";
import { createMemory, LIST } from "./maps.ts";
import { Plan } from "./pieces.ts";

/** A program that lists namespaces, loaded, so that a confined process can run it too. */
export class NamespaceLister implements Disposable {
  readonly #owned: DisposableStack;
  readonly #program: Fd;
  readonly #view: DataView;

  /**
   * @param code The program.
   * @param list The map that it writes to.
   * @throws {SysError} If the kernel refuses it.
   */
  private constructor(code: Code, list: Fd) {
    using owned = new DisposableStack();
    this.#program = owned.use(loadCode(code, { prog_type: PROGRAM_TYPE.RAW_TRACEPOINT, prog_name: "penne_list" }));
    this.#view = new DataView(owned.use(new Mapping(list, LIST.SIZE, { write: true })).memory());
    this.#owned = owned.move();
  }

  /**
   * Loads the program.
   *
   * @param plan What it is generated for; its maps and filter do not count.
   * @returns It; null if the kernel has no lists of namespaces, before Linux 6.18.
   * @throws {SysError} If the kernel refuses it.
   */
  static load(plan: Plan): NamespaceLister | null {
    using list = createMemory("penne_list", LIST.SIZE);
    const code = namespaces(plan, list.number);
    return code === null ? null : new NamespaceLister(code, list);
  }

  /**
   * Runs the program, and reads what it has written.
   *
   * @returns The namespaces.
   * @throws {SysError} If it cannot be run.
   */
  list(): Namespace[] {
    const view = this.#view;
    view.setUint32(LIST.COUNT, 0, true);
    runProgram(this.#program);
    return Array.from({ length: view.getUint32(LIST.COUNT, true) }, (_, i) => {
      const at = LIST.ENTRIES + 16 * i;
      return {
        type: slotType(SLOTS[view.getUint32(at, true)]!),
        inum: view.getUint32(at + 4, true),
        id: `${view.getBigUint64(at + 8, true)}`,
      };
    });
  }

  /** Unloads it. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
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
  const plan = new Plan(layout, {}, { ring: NO_MAP, control: NO_MAP, storage: NO_MAP, trees: null }, 0);
  using lister = NamespaceLister.load(plan);
  return lister?.list() ?? null;
}
