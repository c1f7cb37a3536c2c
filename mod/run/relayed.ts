// Exposed commands in any Deno program: their relay is driven by the program's event loop.
//
// The terminal is the program's as much as the command's, so the command gets its foreground only when it wants to use it,
// and a stop by a key stops the program too, as the kernel would stop both.

import { SIGNAL } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { call, self } from "../../ffi/core/task.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { RESUME_INTERVAL, RESUME_TRIES } from "../agents/enclosure.ts";
import { attempt } from "../base/errors.ts";
import { type Pump, pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { Relay } from "../relay/relay.ts";
import type { Child } from "./child.ts";
import type { RunningCommand } from "./process.ts";
import { type ChildState, type ExitStatus, REPORTS_MAX } from "./reports.ts";
import type { RelaySettings } from "./start.ts";
import { isOrphaned } from "./terminal.ts";

const KILLED: ExitStatus = { code: null, signal: SIGNAL.KILL };

/** Makes a relay for a command if that is exposed, and drives it. */
export class RelayDriver {
  #onWarning: (message: string) => void;
  #reactor: Reactor | null = null;
  #cleanup = new DisposableStack();
  #over = false;

  #given: readonly (Fd | null)[];
  #pump: Pump | null = null;

  /**
   * @param onWarning Called when what the command has written could not be passed on.
   * @param given Descriptors that the command gets in place of the caller's; null where it gets the caller's.
   */
  constructor(onWarning: (message: string) => void = () => {}, given: readonly (Fd | null)[] = []) {
    this.#onWarning = onWarning;
    this.#given = given;
  }

  /**
   * Makes the relay; to be passed on as `openRelay`.
   *
   * @param settings What of the command's settings it depends on.
   * @returns The relay.
   */
  readonly open = (settings: RelaySettings): Relay => {
    this.#reactor = this.#cleanup.use(new Reactor());
    const host = { call, borrow: (number: number) => Fd.borrow(number) };
    const options = {
      ...settings,
      host,
      reactor: this.#reactor,
      interactive: false,
      given: this.#given,
      onWarning: this.#onWarning,
    };
    return attempt("open a terminal and pipes for the command", () => new Relay(options));
  };

  /**
   * Starts a command, and to relay if it has a relay.
   *
   * @param begin Starts the command.
   * @returns The command for the caller of the library.
   */
  drive(begin: () => Child): RunningCommand {
    try {
      const child = begin();
      return child.relay ? this.#drive(child, child.relay, this.#reactor!) : child;
    } catch (error) {
      this.#cleanup.dispose();
      throw error;
    }
  }

  #drive(child: Child, relay: Relay, reactor: Reactor): RunningCommand {
    /** How it has ended. */
    let how: ExitStatus | null = null;
    let settle: (status: ExitStatus) => void;
    const status = new Promise<ExitStatus>((resolve, reject) => {
      settle = resolve;
      const finish = (status: ExitStatus) => {
        how = status;
        child.endInside();
        relay.drain(() => {
          relay.giveBackInput();
          resolve(status);
          this.#close(child);
        });
      };
      const look = () => {
        // The sockets of the agents are closed once the command has ended.
        let reports = 0;
        for (let state: ChildState | null; !how && !this.#over && reports < REPORTS_MAX; reports++) {
          if (!(state = child.next())) return;
          if (state.kind === "exited") return finish(state.status);
          if (state.kind === "lost") return finish(KILLED);
          if (state.kind === "stopped") this.#follow(child, relay, state.signal);
        }
      };
      for (const fd of child.reports.sockets) this.#watch(fd, look);
      const exit = this.#watch(child.pidfd, () => {
        exit.remove();
        let tries = 0;
        const resume = () => {
          if (how || this.#over) return;
          if (tries++ > RESUME_TRIES) return finish(KILLED);
          child.enclosure.resumeAgents();
          reactor.after(RESUME_INTERVAL, resume);
        };
        resume();
      });
      this.#listen(child, relay);
      relay.start();
      const pumping = this.#pump = pump(reactor, (error) => {
        reject(error);
        this.#close(child);
      });
      this.#cleanup.defer(pumping.stop);
      this.#cleanup.defer(() => resolve(KILLED));
    });
    return {
      get pid() {
        return child.pid;
      },
      namespaces: child.namespaces,
      status,
      kill: (signal) => child.kill(signal),
      keepProgram: (keeps) => this.#pump?.keep(keeps),
      waitSync: null,
      end: () => {
        if (how) relay.flush();
        else how = child.end();
        settle(how);
        this.#close(child);
        return how;
      },
      [Symbol.dispose]: () => this.#close(child),
    };
  }

  #watch(fd: Fd, callback: () => void) {
    return this.#cleanup.adopt(this.#reactor!.watch(fd, EPOLL.IN, callback), (registration) => registration.remove());
  }

  /** Listens to what happens to the terminal. */
  #listen(child: Child, relay: Relay): void {
    if (!relay.hasTerminal) return;
    const resize = () => relay.resize();
    const go = () => {
      relay.giveTo(child.pid);
      self.raw("kill", -child.pid, SIGNAL.CONT);
    };
    for (const [signal, listener] of [["SIGWINCH", resize], ["SIGCONT", go]] as const) {
      Deno.addSignalListener(signal, listener);
      this.#cleanup.defer(() => Deno.removeSignalListener(signal, listener));
    }
  }

  /** Follows a stop of the command: gives it the terminal that it wants, or stops this program too, as the kernel would. */
  #follow(child: Child, relay: Relay, signal: number): void {
    if (signal === SIGNAL.STOP) return;
    const wantsTerminal = signal === SIGNAL.TTIN || signal === SIGNAL.TTOU;
    if (wantsTerminal) relay.want();
    if (isOrphaned() || wantsTerminal && relay.foreground === relay.group) {
      relay.giveTo(child.pid);
      self.raw("kill", -child.pid, SIGNAL.CONT);
      return;
    }
    relay.takeBack();
    self.raw("kill", 0, signal); // SIGCONT is what continues both
  }

  #close(child: Child): void {
    if (this.#over) return;
    this.#over = true;
    const cleanup = this.#cleanup.move();
    child.relay?.restore();
    child.close();
    cleanup.dispose();
  }
}
