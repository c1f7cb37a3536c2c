// Typed syscalls, descriptors and errors.

import "../lib/preload.ts";
import { assertEquals, assertThrows } from "@std/assert";
import { AT_FDCWD, F, O, POLL, SIGNAL } from "../../ffi/core/consts.ts";
import { E, errnoName, errnoText, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { decodeWaitStatus, openPid, pidOf, sendSignal } from "../../ffi/sys/process.ts";
import { open, pipe, readBytes, write } from "../../ffi/sys/file.ts";
import { poll, pollAsync } from "../../ffi/sys/poll.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self } from "../../ffi/core/task.ts";
import { test } from "../lib/helpers.ts";

test("an Fd is closed once, and not used afterwards", () => {
  const [reader, writer] = pipe();
  const number = reader.number;
  reader.close();
  const reuse = open(self, "/dev/null", O.RDONLY); // gets the same number
  assertEquals(reuse.number, number);
  reader.close();
  assertEquals(stat(self, reuse).mode >> 12, 0o2); // still open: a character device
  assertThrows(() => reader.number, TypeError, "has been closed");
  assertEquals(new Fd(reuse.release()).number, number);
  new Fd(number).close();
  writer.close();
});

test("a borrowed Fd leaves the descriptor open", () => {
  const [reader, writer] = pipe();
  {
    using borrowed = Fd.borrow(reader.number);
    assertEquals(borrowed.number, reader.number);
  }
  assertEquals(self.raw("fcntl", reader.number, F.GETFD), F.FD_CLOEXEC);
  reader.close();
  writer.close();
});

test("a SysError has the number, name and text of errno(3)", () => {
  const error = assertThrows(() => open(self, "/no/such", O.RDONLY), SysError);
  assertEquals([error.syscall, error.errno, error.code], ["openat", 2, "ENOENT"]);
  assertEquals(error.message, "openat: No such file or directory (ENOENT)");
  assertEquals([errnoName(18), errnoName(4000), errnoText(1)], ["EXDEV", "E4000", "Operation not permitted"]);
  assertEquals([errnoName(133), errnoName(0), errnoName(41)], ["EHWPOISON", "E0", "E41"]);
  for (const [name, number] of Object.entries(E)) assertEquals(errnoName(number), name);
});

test("results are not disturbed by failing syscalls of the runtime", () => {
  for (let i = 0; i < 2000; i++) {
    assertEquals(self.raw("openat", AT_FDCWD, cString("/no/such"), 0), -E.ENOENT);
    assertThrows(() => Deno.statSync("/etc/passwd/x"));
    assertEquals(self.raw("close", -1), -E.EBADF);
  }
});

test("readBytes() reads files of any size, also those whose size is 0", () => {
  assertEquals(readBytes(self, "/proc/self/maps").length > 4096, true);
  const file = Deno.makeTempFileSync();
  const data = crypto.getRandomValues(new Uint8Array(60_000));
  Deno.writeFileSync(file, data);
  assertEquals(readBytes(self, file), data);
  Deno.removeSync(file);
});

test("a SignalPipe reports signal and sender, and leaves ignored signals ignored", () => {
  using signals = new SignalPipe();
  signals.catch(SIGNAL.USR2);
  call(self, "kill", Deno.pid, SIGNAL.USR2);
  assertEquals(poll([{ fd: signals.reader, events: POLL.IN }], 2000), [POLL.IN]);
  const [record] = signals.take();
  assertEquals([record?.signal, record?.pid], [SIGNAL.USR2, Deno.pid]);
  assertEquals(record!.code <= 0, true);
  assertEquals(signals.take(), []);
  signals.catch(SIGNAL.PIPE); // ignored by Rust
  call(self, "kill", Deno.pid, SIGNAL.PIPE);
  assertEquals(signals.take(), []);
});

test("pollAsync() does not block the event loop", async () => {
  const [reader, writer] = pipe();
  let ticks = 0;
  const timer = setInterval(() => ++ticks === 5 && write(writer, new Uint8Array(1)), 2);
  assertEquals(await pollAsync([{ fd: reader, events: POLL.IN }]), [POLL.IN]);
  clearInterval(timer);
  assertEquals(ticks >= 5, true);
  reader.close();
  writer.close();
});

test("a pidfd refers to its process even after the end", async () => {
  const child = new Deno.Command("sleep", { args: ["100"] }).spawn();
  using pidfd = openPid(child.pid);
  assertEquals(pidOf(pidfd), child.pid);
  assertEquals([sendSignal(pidfd, 0), sendSignal(pidfd, SIGNAL.KILL)], [true, true]);
  await child.status;
  assertEquals([sendSignal(pidfd, 0), pidOf(pidfd)], [false, -1]);
});

test("decodeWaitStatus() covers every kind of status", () => {
  assertEquals(decodeWaitStatus(0xff00), { code: 255, signal: null, stopped: null, continued: false });
  assertEquals(decodeWaitStatus(0x8b), { code: null, signal: 11, stopped: null, continued: false });
  assertEquals(decodeWaitStatus(0x137f), { code: null, signal: null, stopped: 19, continued: false });
  assertEquals(decodeWaitStatus(0xffff), { code: null, signal: null, stopped: null, continued: true });
});

test("NR has the syscall numbers of this architecture", () => {
  assertEquals(call(self, "getpid"), Deno.pid);
  assertEquals(NR.getpid, Deno.build.arch === "aarch64" ? 172 : 39);
});

test("modules of the hot paths can be imported without a permission", async () => {
  for (
    const module of [
      "ffi/net/socket.ts",
      "ffi/net/queue_error.ts",
      "mod/datapath/netif/rules.ts",
      "mod/netlink/socket.ts",
    ]
  ) {
    const args = ["run", "--quiet", "--no-prompt", "--no-check", new URL(`../../${module}`, import.meta.url).pathname];
    const { code, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    assertEquals([module, new TextDecoder().decode(stderr), code], [module, "", 0]);
  }
});
