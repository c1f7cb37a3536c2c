// The terminal of the caller while a command works on one of its own: who has it, raw or as it was.

import { O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { call, self } from "../../ffi/core/task.ts";
import { open as openFile } from "../../ffi/sys/file.ts";
import { rawSettings } from "../../ffi/sys/pty.ts";
import { foregroundGroup, getSettings, setSettings, type TerminalSettings } from "../../ffi/sys/terminal.ts";
import { duplicate } from "./standard.ts";

/** The caller's terminal. */
export class OuterTerminal implements Disposable {
  /** To read from. */
  readonly input: Fd;
  /** To write to, and for settings. */
  readonly output: Fd;
  /** Whether calls on it may block, because it could not be opened once more. */
  readonly blocks: boolean;
  /** Penne's own process group. */
  readonly group: number;
  /** The settings at the start. */
  readonly settings: TerminalSettings;
  #raw: TerminalSettings;
  #isRaw = false;

  /**
   * Opens it once more, so that it can be made non-blocking without a change for other programs. The controlling terminal
   * can be opened under the name /dev/tty even if its file belongs to another user.
   *
   * @param number The number of a descriptor of it.
   * @param whole Whether it is both input and output of the command, so that no neighbour in a pipeline prints to it.
   * @throws {SysError} EMFILE if there are too many descriptors.
   */
  constructor(number: number, whole: boolean) {
    const reopened = foregroundGroup(number) < 0 ? `/proc/self/fd/${number}` : "/dev/tty";
    const open = () => orNull(() => openFile(self, reopened, O.RDWR | O.NOCTTY | O.NONBLOCK));
    using owned = new DisposableStack();
    const first = open();
    this.blocks = first === null;
    this.output = owned.use(first ?? duplicate(Fd.borrow(number)));
    this.input = owned.use((this.blocks ? null : open()) ?? duplicate(Fd.borrow(number)));
    this.group = call(self, "getpgid", 0);
    this.settings = getSettings(this.output);
    this.#raw = rawSettings(this.settings, whole);
    owned.move();
  }

  /** The process group in the foreground; 0 if it is in another pid namespace. */
  get foreground(): number {
    const group = foregroundGroup(this.output);
    // Without a controlling terminal there is no job control, and nobody who would be in the foreground instead.
    return group < 0 ? this.group : group;
  }

  /** Whether penne's own process group has it. */
  get isOurs(): boolean {
    return this.foreground === this.group;
  }

  /** Passes every key on as it comes. */
  makeRaw(): void {
    setSettings(this.output, this.#raw);
    this.#isRaw = true;
  }

  /** Restores the settings, unless another process group has the terminal, or they have not been changed. */
  restore(): void {
    if (!this.#isRaw) return;
    this.#isRaw = false;
    if (this.isOurs) setSettings(this.output, this.settings);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.input.close();
    this.output.close();
  }
}
