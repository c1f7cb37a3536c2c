// The agent: syscalls elsewhere, its clones, and its end.

import "../lib/preload.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { AT_FDCWD, CLONE, F, O, POLL, PR } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { cString, text } from "../../ffi/core/memory.ts";
import { decodeWaitStatus, waitChild } from "../../ffi/sys/process.ts";
import { open, pipe, read, readBytes, write } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { call, out, self, TaskFd } from "../../ffi/core/task.ts";
import { processes, test, until } from "../lib/helpers.ts";

/** Number of our open descriptors. */
function descriptors(): number {
  return Array.from(Deno.readDirSync("/proc/self/fd")).length;
}

/** Makes a test of a body that must not leak a descriptor; the runtime may open a few of its own meanwhile. */
function clean(body: () => void | Promise<void>): () => Promise<void> {
  const times = 8;
  return async () => {
    const before = descriptors();
    for (let i = 0; i < times; i++) await body();
    assertEquals(descriptors() - before < times, true);
  };
}

function end(agent: Agent): void {
  agent.close();
  waitChild(agent.pid);
}

test(
  "an agent has its socket, placeholders for stdin, stdout and stderr, and nothing else",
  clean(() => {
    const [reader, writer] = pipe();
    using _reader = reader;
    using _writer = writer;
    const agent = Agent.spawn();
    call(agent, "getpid"); // descriptors are closed on exec only after the clone has returned here
    const held = Array.from(Deno.readDirSync(`/proc/${agent.pid}/fd`), ({ name }) => name);
    assertEquals(held.length, 4);
    for (const fd of [0, 1, 2]) {
      assertEquals(Deno.readLinkSync(`/proc/${agent.pid}/fd/${fd}`).startsWith("/memfd:penne-agent"), true);
    }
    assertEquals(readBytes(self, `/proc/${agent.pid}/environ`).length, 0);
    end(agent);
  }),
);

test(
  "a TaskFd is closed in its agent at the end of its block",
  clean(() => {
    const agent = Agent.spawn();
    const held = () => Array.from(Deno.readDirSync(`/proc/${agent.pid}/fd`)).length;
    call(agent, "getpid");
    const before = held();
    {
      using file = new TaskFd(agent, "openat", AT_FDCWD, cString("/dev/null"), O.RDONLY | O.CLOEXEC);
      assertEquals([call(agent, "fcntl", file.number, F.GETFD), held() - before], [F.FD_CLOEXEC, 1]);
    }
    assertEquals(held(), before);
    end(agent);
  }),
);

test(
  "a TaskFd in an agent that has ended leaves the error as it is",
  clean(() => {
    const agent = Agent.spawn();
    assertThrows(() => {
      using file = new TaskFd(agent, "openat", AT_FDCWD, cString("/dev/null"), O.RDONLY | O.CLOEXEC);
      Deno.kill(agent.pid, "SIGKILL");
      call(agent, "fcntl", file.number, F.GETFD);
    }, AgentGoneError);
    end(agent);
  }),
);

test(
  "an agent answers with the kernel's results and errors",
  clean(() => {
    const agent = Agent.spawn();
    assertEquals(call(agent, "getpid"), agent.pid);
    assertThrows(() => call(agent, "openat", AT_FDCWD, cString("/no/such"), 0), SysError, "ENOENT");
    const name = new Uint8Array(390);
    call(agent, "uname", out(name));
    assertEquals(text(name), "Linux");
    end(agent);
  }),
);

test(
  "an agent takes and gives descriptors",
  clean(() => {
    const agent = Agent.spawn();
    const [reader, writer] = pipe();
    assertEquals(call(agent, "write", writer, cString("hello"), 5), 5);
    const buffer = new Uint8Array(8);
    assertEquals(read(reader, buffer), 5);
    {
      using status = agent.open("openat", AT_FDCWD, cString("/proc/self/status"), O.RDONLY | O.CLOEXEC);
      read(status, new Uint8Array(1));
      using direct = open(agent, "/proc/self/comm", O.RDONLY);
      const comm = new Uint8Array(64);
      read(direct, comm);
    }
    // Nothing of either stays in the agent, which closes what it has sent after sending it.
    call(agent, "getpid");
    assertEquals(Array.from(Deno.readDirSync(`/proc/${agent.pid}/fd`)).length, 4);
    reader.close();
    writer.close();
    end(agent);
  }),
);

test(
  "an agent takes arguments larger than a packet",
  clean(() => {
    const agent = Agent.spawn();
    const [reader, writer] = pipe();
    const words = Array.from({ length: 30_000 }, (_, i) => `word${i}`);
    const argv = ["sh", "-c", 'echo "$# $1 ${30000}"', "sh", ...words];
    assertEquals(exec(agent, "/bin/sh", argv, [], { stdio: [Fd.borrow(0), writer, Fd.borrow(2)] }), null);
    writer.close();
    const buffer = new Uint8Array(64);
    assertEquals(text(buffer.subarray(0, read(reader, buffer))), "30000 word0 word29999\n");
    reader.close();
    end(agent);
  }),
);

test(
  "an agent refuses requests with pointers outside the payload",
  clean(() => {
    const agent = Agent.spawn();
    for (const [at, value] of [[68, 1 << 20], [72, 1 << 20], [76, 1 << 20], [80, 1 << 20], [0, 77]] as const) {
      const request = new Uint8Array(96);
      new DataView(request.buffer).setUint32(at, value, true);
      write(agent.socket, request);
      const answer = new Uint8Array(64);
      read(agent.socket, answer);
      assertEquals(new DataView(answer.buffer).getBigInt64(8, true), -22n);
    }
    write(agent.socket, new Uint8Array(5));
    const answer = new Uint8Array(64);
    read(agent.socket, answer);
    assertEquals(new DataView(answer.buffer).getBigInt64(8, true), -22n);
    assertEquals(call(agent, "getpid"), agent.pid);
    end(agent);
  }),
);

test(
  "a clone is a child of its agent, and its end is reported",
  clean(() => {
    const agent = Agent.spawn();
    const clone = agent.clone();
    assertEquals(call(clone, "getppid"), agent.pid);
    agent.reap(clone.pid);
    assertThrows(() => call(clone, "exit_group", 9), AgentGoneError);
    const event = agent.nextEvent()!;
    assertEquals([event.pid, decodeWaitStatus(event.status).code], [clone.pid, 9]);
    clone.close();
    end(agent);
  }),
);

test(
  "the end of a clone before the request is reported too",
  clean(() => {
    const agent = Agent.spawn();
    const clone = agent.clone();
    assertThrows(() => call(clone, "exit_group", 3), AgentGoneError);
    // A signal ends a wait early.
    for (let i = 0; i < 1000 && !poll([{ fd: clone.pidfd, events: POLL.IN }], 100)[0]; i++);
    agent.reap(clone.pid);
    assertEquals(decodeWaitStatus(agent.nextEvent()!.status).code, 3);
    clone.close();
    end(agent);
  }),
);

test(
  "an agent and its descendants end when its socket is closed",
  clean(async () => {
    const agent = Agent.spawn();
    call(agent, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    const clone = agent.clone();
    agent.reap(clone.pid, [call(agent, "openat", AT_FDCWD, cString("/proc/thread-self/children"), O.CLOEXEC)]);
    const own = `7654.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    const script = "setsid sh -c 'sleep N & sleep N' & (sleep N &) ; exec sleep N".replaceAll("N", own);
    assertEquals(exec(clone, "/bin/sh", ["sh", "-c", script], [cString("PATH=/usr/bin:/bin").subarray(0, -1)]), null);
    clone.close();
    const sleeping = () => processes().filter(({ cmdline }) => cmdline[1] === own).length;
    await until("four are asleep", () => sleeping() === 4);
    end(agent);
    await until("none is left", () => sleeping() === 0);
  }),
);

test(
  "a killed agent is noticed",
  clean(() => {
    const agent = Agent.spawn();
    Deno.kill(agent.pid, "SIGKILL");
    assertThrows(() => {
      for (let i = 0; i < 1000; i++) call(agent, "getpid");
    }, AgentGoneError);
    assertEquals([agent.gone, agent.nextEvent()], ["ended", null]);
    end(agent);
  }),
);

test(
  "an agent in new namespaces has every capability there before its ids are mapped",
  clean(() => {
    const agent = Agent.spawn(CLONE.NEWUSER | CLONE.NEWUTS | CLONE.NEWPID);
    assertEquals(call(agent, "getpid"), 1);
    assertEquals(call(agent, "getuid"), 65534);
    call(agent, "sethostname", cString("box"), 3);
    assert(readBytes(self, `/proc/${agent.pid}/status`).length > 0);
    end(agent);
  }),
);

test(
  "an agent's image is a sealed memfd",
  clean(() => {
    const agent = Agent.spawn();
    call(agent, "getpid"); // the clone returns a moment before the exec is over
    assertEquals(Deno.readLinkSync(`/proc/${agent.pid}/exe`).startsWith("/memfd:penne-agent"), true);
    assertThrows(() => open(self, `/proc/${agent.pid}/exe`, O.RDWR), SysError, "ETXTBSY");
    end(agent);
  }),
);
