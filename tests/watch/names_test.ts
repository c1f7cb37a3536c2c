// Names of namespaces, against real mounts.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import type { WatchEvent } from "../../mod/watch/facts/watch_event.ts";
import { NameTracker } from "../../mod/watch/names/name_tracker.ts";
import { Names } from "../../mod/watch/names/names.ts";
import { Liveness } from "../../mod/watch/state/liveness.ts";
import { Tracker } from "../../mod/watch/state/tracker.ts";
import { sh, test } from "../lib/helpers.ts";
import { must } from "../lib/netlab.ts";

test(
  "A name that was removed before its mount was examined is reported once its file is deleted",
  ["root", "kernel:6.15"],
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

test(
  "A name that is mounted once more while a watch starts holds its namespace once, and ends with its last mount",
  ["root", "kernel:6.15"],
  async () => {
    const path = await Deno.makeTempFile({ prefix: "penne-names-" });
    const inum = Number(/\d+/.exec(await Deno.readLink("/proc/self/ns/net"))![0]);
    const mount = () => must(["mount", "--bind", "/proc/self/ns/net", path]);
    await mount();
    const emitted: WatchEvent[] = [];
    const emit = (event: WatchEvent) => emitted.push(event);
    const tracker = new Tracker("ebpf", { filter: {}, emit });
    const liveness = new Liveness(() => tracker.namespaces, () => {}, () => {});
    using names = new NameTracker({ tracker, liveness, events: undefined, emit, onEnd: () => {}, onLost: emit });
    try {
      names.names!.load();
      await mount();
      const changes = names.take();
      names.load(changes);
      names.apply(changes);
      const namespace = tracker.namespaces.find("net", { inum, id: null })!;
      const others = namespace.mounts - 1; // names that are not this test's
      await must(["umount", path]);
      names.apply(names.take());
      assertEquals([emitted, namespace.mounts], [[], others + 1]);
      await must(["umount", path]);
      names.apply(names.take());
      assertEquals(emitted.map((event) => event.event === "name" && [event.path, event.state]), [[path, "gone"]]);
      assertEquals(namespace.mounts, others);
    } finally {
      await sh(["sh", "-c", 'umount "$0" "$0"; rm "$0"', path]);
    }
  },
);
