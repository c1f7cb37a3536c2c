// The buffers of the data path: one set for all namespaces of a thread, since only one frame is being worked on at a time.

import { Block } from "../../../ffi/core/quick.ts";

/** The longest frame: virtio-net header, Ethernet header with a tag, and an IP packet. */
export const FRAME_MAX = 10 + 18 + 65535;

/** Where frames from a tap are read to; a frame that is done with at once is overwritten by the next one. */
export const RX = new Block(1 << 20);

/** Where frames to a tap are put together, payload included. */
export const TX = new Block(2 * 65536 + 4096);
