// Sends and receives frames on an interface through a packet(7) socket.

import { Fd } from "../../../ffi/core/fd.ts";
import { call, out, self } from "../../../ffi/core/task.ts";
import { AF, SOCK } from "../../../ffi/net/constants.ts";

const ETH_P_ALL_BE = 0x0300;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;

/** A socket for whole frames. */
export interface FrameSocket extends Disposable {
  /** The socket. */
  readonly fd: Fd;
  /** The interface's address. */
  readonly mac: Uint8Array;
  /** MAC address of penne's side of the tap. */
  readonly gateway: Uint8Array;
  /** Sends a frame; returns false if the interface does not take it. */
  send(frame: Uint8Array): boolean;
  /** Receives a frame without waiting, or returns null. */
  receive(): Uint8Array | null;
}

/** Opens a packet socket on an interface; with `offload`, each frame has a `struct virtio_net_hdr` before it. */
export function openFrames(name: string, offload = false): FrameSocket {
  const index = Number(Deno.readTextFileSync(`/sys/class/net/${name}/ifindex`));
  const text = Deno.readTextFileSync(`/sys/class/net/${name}/address`).trim();
  const fd = new Fd(call(self, "socket", AF.PACKET, SOCK.RAW | SOCK.NONBLOCK, ETH_P_ALL_BE));
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF.PACKET, true);
  view.setUint16(2, 3);
  view.setInt32(4, index, true);
  call(self, "bind", fd, address, address.length);
  if (offload) call(self, "setsockopt", fd, SOL_PACKET, PACKET_VNET_HDR, new Uint8Array([1, 0, 0, 0]), 4);
  call(self, "setsockopt", fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, new Uint8Array([1, 0, 0, 0]), 4);
  const buffer = new Uint8Array(70000);
  return {
    fd,
    mac: new Uint8Array(text.split(":").map((part) => parseInt(part, 16))),
    gateway: new Uint8Array([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]),
    send: (frame) => self.raw("sendto", fd, frame, frame.length, 0, null, 0) >= 0,
    receive: () => {
      const n = self.raw("recvfrom", fd, out(buffer), buffer.length, 0, null, null);
      return n < 0 ? null : buffer.slice(0, n);
    },
    [Symbol.dispose]: () => fd.close(),
  };
}
