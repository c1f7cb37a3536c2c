// Names of namespaces, against real mounts.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { Names } from "../../mod/watch/names/names.ts";
import { sh, test } from "../lib/helpers.ts";

test(
  "A name that has come and gone unseen is told of once its file has gone, whatever else happens",
  { root: true, kernel: "6.15" },
  async () => {
    await Deno.mkdir("/run/netns", { recursive: true });
    const path = `/run/netns/penne-names-${Deno.pid}`;
    using names = new Names();
    names.load();
    const own = () => names.take().filter((change) => change.path === path).map(({ state, inum }) => [state, inum]);
    await Deno.writeTextFile(path, "");
    try {
      const { code } = await sh(["sh", "-c", 'mount --bind /proc/self/ns/net "$0" && umount "$0"', path]);
      assertEquals([code, own()], [0, []]);
    } finally {
      await Deno.remove(path);
    }
    assertEquals(own(), [["mounted", null], ["gone", null]]);
  },
);
