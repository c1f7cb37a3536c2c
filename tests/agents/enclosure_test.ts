// The end of agents: also if they are stopped, or their parent is killed first.

import { assertEquals, assertThrows } from "@std/assert";
import "../lib/preload.ts";
import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { call } from "../../ffi/core/task.ts";
import { Enclosure, endAgents } from "../../mod/agents/enclosure.ts";
import { adoptOrphans } from "../../mod/agents/guard.ts";
import { test, until } from "../lib/helpers.ts";

/** A guard and an agent that is its child, as run and enter make them. */
function pair(): { guard: Agent; agent: Agent } {
  const guard = Agent.spawn();
  adoptOrphans(guard);
  return { guard, agent: guard.clone() };
}

/** The state of a process as in /proc/PID/stat; null if it was waited for. */
function stateOf(pid: number): string | null {
  try {
    return /\) (\S)/.exec(Deno.readTextFileSync(`/proc/${pid}/stat`))![1]!;
  } catch {
    return null;
  }
}

test("endAgents() ends agents that are stopped, and waits for its child", () => {
  const { guard, agent } = pair();
  for (const { pid } of [guard, agent]) Deno.kill(pid, "SIGSTOP");
  endAgents([agent, guard]);
  assertEquals(stateOf(guard.pid), null);
  assertEquals([null, "Z"].includes(stateOf(agent.pid)), true); // init may not have waited for it yet
});

test("endAgents() waits for an agent whose parent was killed", () => {
  const { guard, agent } = pair();
  Deno.kill(guard.pid, "SIGKILL");
  endAgents([agent, guard]);
  assertEquals([stateOf(guard.pid), agent.pidfd.closed], [null, true]);
});

test("an enclosure releases its resources in reverse order, once its agents have ended", () => {
  const { guard, agent } = pair();
  const enclosure = new Enclosure([guard], agent);
  const seen: string[] = [];
  for (const name of ["tap", "drain"]) {
    enclosure.afterEnd.defer(() => seen.push(`${name} ${stateOf(guard.pid) === null ? "after" : "before"} the end`));
  }
  enclosure.close();
  enclosure.close();
  assertEquals(seen, ["drain after the end", "tap after the end"]);
  assertThrows(() => call(agent, "getpid"), Error);
});

test("an agent without a guard is not made a holder: it would be a child of this process", () => {
  using enclosure = new Enclosure([], Agent.spawn());
  assertThrows(() => enclosure.handOverToHolder("x"), TypeError);
  assertEquals(call(enclosure.agent, "getpid"), enclosure.agent.pid);
});

test("a holder outlives its enclosure and the guard", async () => {
  const { guard, agent } = pair();
  const enclosure = new Enclosure([guard], agent);
  enclosure.handOverToHolder("a test");
  assertThrows(() => call(agent, "getpid"), AgentGoneError);
  enclosure.close();
  assertEquals(stateOf(guard.pid), null);
  await until("the holder has started and waits", () => stateOf(agent.pid) === "S");
  assertEquals(Deno.readTextFileSync(`/proc/${agent.pid}/cmdline`), "penne-holder\0hold\0a test\0");
  Deno.kill(agent.pid, "SIGKILL");
});
