// Whoever sees the frames of an interface.

/** Sees frames as they pass. */
export interface FrameWatch {
  /**
   * Called with each frame.
   *
   * @param bytes Memory that holds it, and is overwritten soon.
   * @param at Offset of its `struct virtio_net_hdr`.
   * @param length Bytes of the frame, including that header.
   * @param inward Whether it goes into the namespace.
   */
  frame(bytes: Uint8Array, at: number, length: number, inward: boolean): void;
}
