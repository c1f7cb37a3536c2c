// Names of containers by their ids, from what the engines keep on the disk; no engine is asked.

import { orNull } from "../../ffi/core/errno.ts";
import { O } from "../../ffi/core/consts.ts";
import { open, readAll } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { environment, variable } from "../host/caller.ts";

/** An engine whose containers have ids of 64 digits. */
export type EngineKind = "docker" | "podman" | "containerd" | "crio";

/** Most bytes of a record. */
const SIZE_MAX = 16 << 20;

/** Reads JSON that another program wrote. */
function readJson(path: string): unknown {
  const bytes = orNull(() => {
    using file = open(self, path, O.RDONLY | O.NONBLOCK);
    return readAll(file, SIZE_MAX);
  });
  try {
    return bytes && JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null; // it is being written
  }
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

/** The directories in which podman keeps containers: root's, and the caller's. */
function podmanStores(): string[] {
  const all = environment();
  const home = variable(all, "HOME");
  const data = variable(all, "XDG_DATA_HOME") ?? (home === undefined ? undefined : `${home}/.local/share`);
  const roots = ["/var/lib/containers/storage", ...data === undefined ? [] : [`${data}/containers/storage`]];
  return roots.flatMap((root) => [`${root}/overlay-containers`, `${root}/vfs-containers`]);
}

function podmanNames(): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const store of podmanStores()) {
    const list = readJson(`${store}/containers.json`);
    for (const entry of Array.isArray(list) ? list : []) {
      const [id, name] = [text(entry?.id), text(entry?.names?.[0])];
      if (id !== null && name !== null) names.set(id, name);
    }
  }
  return names;
}

/** Looks the name of a container up; null if it is not known. */
export type ContainerNames = Readonly<Record<EngineKind, (id: string) => string | null>>;

/**
 * Makes what looks names of containers up, for one list: they change.
 *
 * @returns The look-ups.
 */
export function containerNames(): ContainerNames {
  let podman: ReadonlyMap<string, string> | undefined;
  return {
    docker(id) {
      const config = readJson(`/var/lib/docker/containers/${id}/config.v2.json`) as { Name?: unknown } | null;
      return text(config?.Name)?.replace(/^\//, "") ?? null;
    },
    podman: (id) => (podman ??= podmanNames()).get(id) ?? null,
    containerd: () => null, // the id is the name
    crio: () => null,
  };
}
