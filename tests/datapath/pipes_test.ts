// The pool of pipes for bytes that are passed on.

import { assert, assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { E } from "../../ffi/core/errno.ts";
import { Block } from "../../ffi/core/quick.ts";
import { readAt, writeAt } from "../../ffi/net/socket.ts";
import { PipePool } from "../../mod/datapath/splice/pipes.ts";
import { test } from "../lib/helpers.ts";
import { closePipe } from "../../ffi/net/splice.ts";

test("a pipe that is given back with bytes in it is lent again without them", () => {
  const pool = new PipePool();
  const block = new Block(40_000);
  const pipe = pool.borrow()!;
  assertEquals(writeAt(pipe.writer, block.at, 40_000), 40_000);
  pool.giveBack(pipe, 40_000);
  const again = pool.borrow();
  assertStrictEquals(again, pipe);
  assertEquals(readAt(pipe.reader, block.at, 1), -E.EAGAIN);
  const other = pool.borrow()!;
  assertNotStrictEquals(other, pipe);
  for (const one of [pipe, other]) closePipe(one);
});

test("more pipes than the pool keeps are lent, and no more are kept", () => {
  const pool = new PipePool();
  const pipes = Array.from({ length: 20 }, () => pool.borrow()!);
  for (const pipe of pipes) {
    assert(pipe.slots >= 16, `${pipe.slots}`);
    pool.giveBack(pipe, 0);
  }
  const again = Array.from({ length: 20 }, () => pool.borrow()!);
  assertEquals(again.filter((pipe) => pipes.includes(pipe)).length, 8);
  for (const pipe of again) closePipe(pipe);
});
