// The kernels that penne is tried on: Debian's, by the suite that has them.

/** An architecture, as the kernel calls it. */
export type Architecture = "x86_64" | "aarch64";

/** A version of Linux. */
export type Version = `${number}.${number}`;

/** A kernel of Debian. */
export interface Kernel {
  /** How the command line calls it. */
  readonly name: string;
  readonly version: Version;
  readonly architecture: Architecture;
  /** Suite of Debian that its package, and the rest of its system, come from. */
  readonly suite: string;
  /** Suite that is added to the first one for the package of the kernel. */
  readonly backports?: string;
  readonly package: string;
  /** Bytes of a page. */
  readonly page: 4096 | 16384;
  /** More packages of the suite. */
  readonly packages?: readonly string[];
  /** Options that it is started with. */
  readonly options?: string;
}

const [amd64, arm64] = ["linux-image-cloud-amd64", "linux-image-cloud-arm64"];

/** All kernels. */
export const KERNELS: readonly Kernel[] = [
  { name: "5.10", version: "5.10", architecture: "x86_64", suite: "bullseye", package: amd64, page: 4096 },
  { name: "6.1", version: "6.1", architecture: "x86_64", suite: "bookworm", package: amd64, page: 4096 },
  { name: "6.12", version: "6.12", architecture: "x86_64", suite: "trixie", package: amd64, page: 4096 },
  { name: "7.2", version: "7.2", architecture: "x86_64", suite: "forky", package: amd64, page: 4096 },
  {
    name: "7.3",
    version: "7.3",
    architecture: "x86_64",
    suite: "trixie",
    backports: "trixie-backports",
    package: amd64,
    page: 4096,
  },
  { name: "6.12-aarch64", version: "6.12", architecture: "aarch64", suite: "trixie", package: arm64, page: 4096 },
  {
    name: "6.12-aarch64-16k",
    version: "6.12",
    architecture: "aarch64",
    suite: "trixie",
    package: "linux-image-arm64-16k",
    page: 16384,
  },
];

/** Whether a version is older than another one. */
export function isOlder(version: string, than: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [thanMajor = 0, thanMinor = 0] = than.split(".").map(Number);
  return major < thanMajor || major === thanMajor && minor < thanMinor;
}
