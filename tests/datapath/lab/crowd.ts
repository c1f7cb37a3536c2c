// Clients with many flows each, and their server, which are told line by line when to go on.

import { assertEquals } from "@std/assert";
import { type Network, PEER4 } from "./network.ts";

function program(...args: string[]): string[] {
  const script = `${import.meta.dirname}/flood.ts`;
  return [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded", script, ...args];
}

/** A process that is controlled line by line. */
class Talk {
  readonly child: Deno.ChildProcess;
  #reader: ReadableStreamDefaultReader<string>;
  #writer: WritableStreamDefaultWriter<Uint8Array>;

  constructor(network: Network, netns: string, argv: string[]) {
    this.child = network.spawn(netns, argv, { stdin: "piped", stdout: "piped", stderr: "inherit" });
    this.#reader = this.child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.#writer = this.child.stdin.getWriter();
  }

  async line(): Promise<string> {
    const { value } = await this.#reader.read();
    return value?.trim() ?? "";
  }

  async say(): Promise<void> {
    await this.#writer.write(new TextEncoder().encode("go\n"));
  }

  async end(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.#reader.cancel();
    await this.#writer.abort().catch(() => {});
    await this.child.status;
  }
}

/** Starts a server in the peer's namespace. */
export async function startServer(network: Network): Promise<Talk> {
  const server = new Talk(network, network.peer, program("serve", PEER4, "7000"));
  assertEquals(await server.line(), "ready");
  return server;
}

/** Starts a client with so many flows of a kind: tcp, udp. */
export function startClient(network: Network, kind: string, count: number, guest = network.guest): Talk {
  return new Talk(network, guest, program("flows", kind, PEER4, "7000", `${count}`));
}
