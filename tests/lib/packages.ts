// The programs that tests use, by the package of Debian that has them; packaging/prepare installs these packages.

/** Programs that tests use, by package. */
export const PACKAGES = {
  "bash": ["bash"],
  "bind9-dnsutils": ["dig"],
  "bubblewrap": ["bwrap"],
  "clang-format": ["clang-format"],
  "codespell": ["codespell"],
  "coreutils": ["chroot", "sha256sum", "stty", "timeout"],
  "curl": ["curl"],
  "dnsmasq-base": ["dnsmasq"],
  "gcc": ["gcc"],
  "git": ["git"],
  "groff": ["groff"],
  "hostname": ["hostname"],
  "iperf3": ["iperf3"],
  "iproute2": ["ip", "ss"],
  "iputils-ping": ["ping"],
  "libc-bin": ["getent"],
  "make": ["make"],
  "mandoc": ["mandoc"],
  "mmdebstrap": ["mmdebstrap"],
  "mount": ["mount", "umount"],
  "nginx-light": ["nginx"],
  "openssl": ["openssl"],
  "passt": ["pasta"],
  "passwd": ["usermod"],
  "perl": ["perl"],
  "procps": ["pgrep", "ps", "sysctl"],
  "python3": ["python3"],
  "runc": ["runc"],
  "slirp4netns": ["slirp4netns"],
  "socat": ["socat"],
  "strace": ["strace"],
  "tcpdump": ["tcpdump"],
  "traceroute": ["traceroute"],
  "uidmap": ["getsubids"],
  "util-linux": ["nsenter", "prlimit", "setpriv", "taskset", "unshare"],
} as const satisfies Record<string, readonly string[]>;

/** A package whose programs tests use. */
export type Package = keyof typeof PACKAGES;
