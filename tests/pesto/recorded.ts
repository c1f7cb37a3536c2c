// What Debian's pasta and pesto of 2026-10-02 say to each other, recorded from their socket. `Nx` stands for N zero bytes.

function bytes(text: string): Uint8Array {
  const parts = text.trim().split(/\s+/).map((word) => {
    const zeros = /^(\d+)x$/.exec(word);
    return zeros ? new Array<number>(Number(zeros[1])).fill(0) : word.match(/../g)!.map((hex) => parseInt(hex, 16));
  });
  return Uint8Array.from(parts.flat());
}

/** `pasta -t 8080:80 -u 127.0.0.1%lo/5353 -t ::1/7070-7071:80-81 -T auto`, to a client that has connected. */
export const STATE = bytes(`
  626173696c3a730000000002000000800000001001484f5354 127x 3f00000003 48x 1f901f9000500601 10x ffff7f000001 16x
  6c6f 14x 14e914e914e911 16x 01 32x 1b9e1b9f005006000353504c494345 125x 3f00000002 32x 6c6f 15x 017fff00010607
  32x 6c6f 14x ee48ffffee48060700
`);

/** `pesto -A -t 198.51.100.7/9000:192.0.2.5`, to that pasta. */
export const UPDATE = bytes(`
  0100000004 48x 1f901f9000500601 10x ffff7f000001 16x 6c6f 14x 14e914e914e911 16x 01 32x 1b9e1b9f00500600
  10x ffffc6336407 10x ffffc0000205 16x 2328232823280600 0300000002 32x 6c6f 15x 017fff00010607
  32x 6c6f 14x ee48ffffee48060700
`);
