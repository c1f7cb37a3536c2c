// Buffers of the data path: one set for all namespaces of a thread, as one frame is handled at a time.

import { Block } from "../../../ffi/core/quick.ts";

/** Bytes of the longest frame: virtio-net header, Ethernet header with a VLAN tag, IP packet. */
export const FRAME_MAX = 10 + 18 + 65535;

/** Receives frames from taps; the next frame overwrites one that has been handled. */
export const RX = new Block(1 << 20);

/** Holds a frame to a tap while it is assembled, with its payload. */
export const TX = new Block(2 * 65536 + 4096);
