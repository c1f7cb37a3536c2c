// Why better back ends of watch are refused here; on other kernels: guest_test.ts.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { penne, sh, test } from "../lib/helpers.ts";
import { assertRefused, filtered } from "./lab/hosts.ts";

const WATCH = (backend: string) => [penne(), "watch", "--backend", backend, "--", "true"];
const EBPF = "cannot observe namespaces by eBPF: Operation not permitted (EPERM)";

test(
  "watch by eBPF: without capabilities, and in a user namespace",
  ["user", "package:util-linux"],
  async () => {
    assertRefused(
      await sh(WATCH("ebpf"), { user: true }),
      EBPF,
      "loading programs into the kernel takes CAP_BPF and CAP_PERFMON; run penne as root, or give it both",
    );
    assertRefused(
      await sh(["unshare", "-Ur", ...WATCH("ebpf")]),
      EBPF,
      "not even root may load programs into the kernel from a user namespace; run penne in the initial user namespace",
    );
  },
);

test("watch by eBPF: the two capabilities in the hint are enough", ["root", "package:util-linux"], async () => {
  const both = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps=-all"];
  const result = await sh([...both, ...WATCH("ebpf")]);
  assertEquals(result.code, 0, result.stderr);
});

test(
  "watch by the process connector: in other namespaces than the initial ones",
  ["root", "package:util-linux"],
  async () => {
    assertRefused(
      await sh(["unshare", "-n", ...WATCH("proc")]),
      "cannot watch by the process connector: Connection refused (ECONNREFUSED)",
      "the process connector answers only in the initial network namespace; run penne there",
    );
    assertRefused(
      await sh(["unshare", "-pf", "--mount-proc", ...WATCH("proc")]),
      "cannot watch by the process connector: the kernel does not answer",
      "the process connector answers only in the initial pid namespace; run penne there",
    );
  },
);

test(
  "watch without the kernel's types says whether /sys is missing",
  ["root", "package:util-linux"],
  async () => {
    const scene = (script: string) => sh(["unshare", "-m", "sh", "-c", `${script}; exec "$@"`, "sh", ...WATCH("ebpf")]);
    const hidden = await scene("mount -t tmpfs none /sys");
    assertRefused(
      hidden,
      "cannot observe namespaces by eBPF: No such file or directory (ENOENT)",
      "/sys is not mounted here, and penne reads the kernel's types from it; as root: mount -t sysfs sysfs /sys",
    );
    assertRefused(
      await scene("mount -t tmpfs none /sys/kernel/btf"),
      "cannot observe namespaces by eBPF: No such file or directory (ENOENT)",
      "this kernel was built without CONFIG_DEBUG_INFO_BTF: there is no /sys/kernel/btf/vmlinux",
    );
    const fixed = await scene("mount -t tmpfs none /sys; mount -t sysfs sysfs /sys");
    assertStringIncludes(fixed.stdout, "backend=ebpf");
  },
);

test(
  "the kernel's types are read where they cannot be mapped, as before Linux 6.16",
  ["root", "ebpf", "package:gcc"],
  async () => {
    const { size } = await Deno.stat("/sys/kernel/btf/vmlinux");
    const refused = await filtered([`mmap[1=${size}]=19`], WATCH("ebpf"));
    const result = await sh(refused);
    assertEquals(result.code, 0, result.stderr);
    assertStringIncludes(result.stdout, "backend=ebpf");
  },
);
