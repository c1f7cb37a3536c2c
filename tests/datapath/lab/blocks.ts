// Numbered datagrams, one at a time, repeated until they are answered: `serve ADDRESS PORT`, or
// `up|down ADDRESS PORT COUNT LOCAL`, which prints the SHA-256 of what was sent and of what was received as JSON.

const [mode, address, port, count = "0", local = ""] = Deno.args;
const SIZE = 1400;

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), (b) => b.toString(16)).join("-");
}

/** The contents of block `i`. */
function block(i: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, i);
  let x = (i + 1) * 2654435761 + seed >>> 0;
  for (let at = 4; at < SIZE; at += 4) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    view.setUint32(at, x >>> 0);
  }
  return bytes;
}

if (mode === "serve") {
  // "up": a block comes and its beginning is returned; "down": a beginning comes and the block is returned.
  const socket = Deno.listenDatagram({ transport: "udp", hostname: address!, port: Number(port) });
  console.log("ready");
  const copy: Uint8Array[] = [];
  for await (const [bytes, from] of socket) {
    const i = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    if (bytes.length === SIZE) {
      copy[i] = bytes.slice();
      await socket.send(bytes.subarray(0, 8), from);
    } else if (bytes.length === 5) {
      const all = new Uint8Array(copy.length * SIZE);
      copy.forEach((b, k) => all.set(b, k * SIZE));
      await socket.send(new TextEncoder().encode(await digest(all)), from);
    } else await socket.send(block(i, 7), from);
  }
} else {
  const n = Number(count);
  const socket = Deno.listenDatagram({ transport: "udp", hostname: local, port: 0 });
  const to = { transport: "udp", hostname: address!, port: Number(port) } as const;
  const ask = async (question: Uint8Array, matches: (answer: Uint8Array) => boolean): Promise<Uint8Array> => {
    const end = Date.now() + 120_000;
    await socket.send(question, to);
    while (Date.now() < end) {
      const timer = setInterval(() => socket.send(question, to).catch(() => {}), 500);
      try {
        const [answer, from] = await socket.receive() as [Uint8Array, Deno.NetAddr];
        if (from.hostname !== address || from.port !== to.port) throw new Error(`an answer from ${from.hostname}`);
        if (matches(answer)) return answer; // other answers are late or repeated
      } finally {
        clearInterval(timer);
      }
    }
    throw new Error("no answer");
  };
  const all = new Uint8Array(n * SIZE);
  const copy = new Uint8Array(n * SIZE);
  const first = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  for (let i = 0; i < n; i++) {
    if (mode === "up") {
      all.set(block(i, 3), i * SIZE);
      await ask(block(i, 3), (answer) => answer.length === 8 && first(answer) === i);
    } else {
      all.set(block(i, 7), i * SIZE);
      const answer = await ask(block(i, 7).subarray(0, 8), (bytes) => bytes.length === SIZE && first(bytes) === i);
      copy.set(answer, i * SIZE);
    }
  }
  const received = mode === "up"
    ? new TextDecoder().decode(await ask(new Uint8Array(5), (answer) => answer.length > 8))
    : await digest(copy);
  socket.close();
  console.log(JSON.stringify({ bytes: all.length, sent: await digest(all), received }));
}
