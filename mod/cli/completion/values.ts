// What the values of options and the operands of commands can be, for completion.

import { SIGNAL } from "../../../ffi/core/consts.ts";
import { NAMESPACE_TYPES } from "../../namespaces/types.ts";
import type { OptionSpec } from "../options/table.ts";

/** What is known when a word is completed: kinds of things that there are now. */
export type Live = "interfaces" | "netns" | "kept" | "pids";

/** What a word may be. */
export interface Values {
  /** Words that are always the same. */
  readonly words?: readonly string[];
  /** Things that there are now; a name of ip netns has this prefix. */
  readonly live?: readonly Live[];
  readonly netnsPrefix?: string;
  /** Whether it is a list with commas. */
  readonly list?: true;
  /** What the shell itself completes. */
  readonly shell?: "files" | "dirs" | "commands";
}

/** The names of all commands, for those that take one. */
export type Commands = readonly string[];

const TYPES: readonly string[] = NAMESPACE_TYPES;
const types = (all: boolean): Values => ({ words: [...TYPES, ...all ? ["all"] : []], list: true });
const PROCESSES: Values = { live: ["pids"], list: true };
const NONE: Values = { words: ["none"] };
const PORTS: Values = { words: ["none", "auto", "all"] };

/** By the name of the option, and where commands differ, behind that of the command. */
const BY_NAME: Readonly<Record<string, Values>> = {
  net: { words: ["tap", "none", "host"] },
  "keep.net": { words: ["none", "host"] },
  unshare: types(true),
  "enter.type": types(true),
  "keep.type": types(true),
  type: types(false),
  map: { words: ["root", "self", "auto", "none"] },
  setgroups: { words: ["allow", "deny"] },
  "log-level": { words: ["debug", "info", "warning", "error"] },
  "log-format": { words: ["text", "json"] },
  format: { words: ["text", "json"] },
  layout: { words: ["penne", "snap"] },
  for: { words: ["present", "gone"] },
  event: { words: ["fork", "exec", "exit", "ns", "birth", "death", "name"], list: true },
  backend: { words: ["ebpf", "proc", "poll", "auto"] },
  dialect: { words: ["seed", "1.1", "1.2"] },
  interface: { live: ["interfaces"] },
  "outbound-if4": { live: ["interfaces"] },
  "outbound-if6": { live: ["interfaces"] },
  "pasta.pid": { shell: "files" },
  "watch.pid": PROCESSES,
  tree: PROCESSES,
  pid: { live: ["pids"] },
  "die-with-parent": { live: ["pids"] },
  "kill-signal": { words: Object.keys(SIGNAL) },
  netns: { live: ["netns"], shell: "files" },
  dns: NONE,
  search: NONE,
  allow: NONE,
  "map-host-loopback": NONE,
  "map-guest-addr": NONE,
  exclude: { words: ["host"] },
  "tcp-ports": PORTS,
  "udp-ports": PORTS,
  "tcp-ns": PORTS,
  "udp-ns": PORTS,
  clear: { words: ["HOST", "SPLICE"] },
};

/** By the placeholder of the value. */
const BY_PLACEHOLDER: Readonly<Record<string, Values>> = {
  FILE: { shell: "files" },
  PATH: { shell: "files" },
  DIR: { shell: "dirs" },
  "SRC[:DST[:ro]]": { shell: "files" },
};

/** The words of an option that are a list, in its help text, behind a colon: `name (meaning), name (meaning)`. */
function columnsIn(help: string): string[] {
  return Array.from(help.matchAll(/(?:: |, )([a-z]+) \(/g), ([, name]) => name!);
}

/**
 * What the value of an option may be.
 *
 * @param command The command.
 * @param option The option.
 * @returns The values; nothing is known of others.
 */
export function valuesOf(command: string, option: OptionSpec): Values {
  if (option.name === "columns") return { words: columnsIn(option.help ?? ""), list: true };
  return BY_NAME[`${command}.${option.name}`] ?? BY_NAME[option.name] ?? BY_PLACEHOLDER[option.value ?? ""] ?? {};
}

const COMMAND: Values = { shell: "commands" };
const NETWORKS: Values = { live: ["netns", "pids"] };
const SETS: Values = { live: ["kept"] };

/**
 * What an operand may be.
 *
 * @param command The command.
 * @param index Which operand, from 0 on; those behind `--` of a command that has a command of its own there do not count.
 * @param commands The names of all commands.
 * @returns The values; "command" if another command line begins there.
 */
export function operandOf(command: string, index: number, commands: Commands): Values | "command" {
  switch (command) {
    case "run":
    case "nsexec":
      return "command";
    case "enter":
      return index > 0 ? "command" : { live: ["kept", "netns", "pids"], netnsPrefix: "netns:" };
    case "attach":
    case "wait":
      return NETWORKS;
    case "flows":
      return index === 0 ? NETWORKS : {};
    case "ports":
      return index === 0 ? { words: ["ls", "add", "del"] } : index === 1 ? NETWORKS : {};
    case "ls":
      return { live: ["netns", "kept", "pids"] };
    case "keep":
      return index === 0 ? SETS : {};
    case "inspect":
    case "drop":
      return SETS;
    case "doctor":
      return index === 0 ? { words: commands } : {};
    case "completions":
      return index === 0 ? { words: ["bash", "zsh", "fish"] } : {};
    case "pasta":
      return index === 0 ? { live: ["pids"], shell: "commands" } : COMMAND;
    case "pesto":
    case "timeline":
      return { shell: "files" };
    default:
      return {};
  }
}
