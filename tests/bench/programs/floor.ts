// The least that a start can cost: loads the shim, makes six namespaces by an agent, and executes a program in them.

import { Agent } from "../../../ffi/agent/agent.ts";
import { CLONE, O } from "../../../ffi/core/consts.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { call, pointers, self } from "../../../ffi/core/task.ts";
import { open, write } from "../../../ffi/sys/file.ts";
import { waitChild } from "../../../ffi/sys/process.ts";

const [program, ...args] = Deno.args;
const ids = { uid: call(self, "geteuid"), gid: call(self, "getegid") };
const agent = Agent.spawn(
  CLONE.NEWUSER | CLONE.NEWNS | CLONE.NEWPID | CLONE.NEWNET | CLONE.NEWIPC | CLONE.NEWUTS,
);

function put(name: string, text: string): void {
  using file = open(self, `/proc/${agent.pid}/${name}`, O.WRONLY);
  write(file, new TextEncoder().encode(text));
}

put("setgroups", "deny");
put("uid_map", `0 ${ids.uid} 1`);
put("gid_map", `0 ${ids.gid} 1`);
const argv = pointers([program!, ...args].map(cString));
const standard = [0, 1, 2].map((number) => Fd.borrow(number));
const refused = agent.execute([cString(program!), argv, pointers([])], 0n, standard);
if (refused !== null) Deno.exit(1);
Deno.exit(waitChild(agent.pid).code ?? 1);
