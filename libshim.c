// SPDX-License-Identifier: MIT
// libshim.c: raw syscalls for TypeScript and, when executed, the agent that makes them inside a namespace.
//
// One freestanding ELF, two uses. Loaded with dlopen it offers the one function at the end of this file. Executed
// (or forked, see shim_spawn) it is the *agent*: a single-threaded process of a few pages that takes requests from a
// SOCK_SEQPACKET socket, makes the syscall that each one describes, and answers with the result. It holds no policy:
// which syscalls are made, and in which order, is decided in TypeScript.
//
// Results are the kernel's own convention everywhere: a value, or -errno. There is no libc and no errno.
//
// The wire format below is mirrored in ffi/agent/wire.ts; a request is one packet, `struct request` followed by its payload.

#include <stddef.h>
#include <stdint.h>

#include <asm/unistd.h>

typedef int64_t i64;
typedef uint64_t u64;
typedef int32_t i32;
typedef uint32_t u32;
typedef uint8_t u8;

#define EXPORT __attribute__((visibility("default")))
#define ADDRESS(p) ((i64)(uintptr_t)(p))

// Only what the uapi headers offer without a libc is included; these few values are the same on every architecture used.
enum {
  EINTR_ = 4,
  EINVAL_ = 22,
  ESRCH_ = 3,
  SIGKILL_ = 9,
  SIGCONT_ = 18,
  SIGUSR1_ = 10,
  SIGTERM_ = 15,
  SIGCHLD_ = 17,
  SIG_SETMASK_ = 2,
  SIG_COUNT = 64,
  POLLIN_ = 1,
  MSG_TRUNC_ = 0x20,
  MSG_CTRUNC_ = 0x08,
  MSG_NOSIGNAL_ = 0x4000,
  MSG_CMSG_CLOEXEC_ = 0x40000000,
  SOL_SOCKET_ = 1,
  SCM_RIGHTS_ = 1,
  WNOHANG_ = 1,
  WUNTRACED_ = 2,
  WCONTINUED_ = 8,
  CLONE_VM_ = 0x100,
  CLONE_FILES_ = 0x400,
  CLONE_PIDFD_ = 0x1000,
  CLONE_VFORK_ = 0x4000,
  CLONE_PARENT_ = 0x8000,
  CLONE_NEWUSER_ = 0x10000000,
  PR_SET_DUMPABLE_ = 4,
  PR_SET_NAME_ = 15,
  PR_CAP_AMBIENT_ = 47,
  PR_CAP_AMBIENT_RAISE_ = 2,
  AT_EMPTY_PATH_ = 0x1000,
  SFD_CLOEXEC_ = 02000000,
  SFD_NONBLOCK_ = 04000,
  F_SETFD_ = 2,
  FD_CLOEXEC_ = 1,
  TCGETS_ = 0x5401,
  ICANON_ = 2,
  OPOST_ = 1,
  TCSETS_ = 0x5402,
  TIOCGPGRP_ = 0x540f,
  TIOCSPGRP_ = 0x5410,
  SA_RESTORER_ = 0x04000000,
  SA_SIGINFO_ = 4,
  SA_RESTART_ = 0x10000000,
};

// ---------------------------------------------------------------------------------------------------------------------
// Syscalls, entry point and clone with a stack of its own: the only parts that differ between architectures.

#if defined(__x86_64__)

enum { PAGE_MAX = 4096 };

static inline i64 sys(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
  i64 result;
  register i64 r10 __asm__("r10") = d;
  register i64 r8 __asm__("r8") = e;
  register i64 r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

__asm__(
    ".text\n.globl _start\n.hidden _start\n.type _start,@function\n"
    "_start:\n  xorl %ebp, %ebp\n  movq %rsp, %rdi\n  andq $-16, %rsp\n  call agent_main\n  hlt\n"
    // i64 clone_call(u64 flags, void *stack_top, i32 *parent_tid, void (*run)(void *), void *arg)
    ".hidden clone_call\n.type clone_call,@function\n"
    "clone_call:\n  andq $-16, %rsi\n  subq $16, %rsi\n  movq %rcx, 0(%rsi)\n  movq %r8, 8(%rsi)\n"
    "  xorl %r10d, %r10d\n  xorl %r8d, %r8d\n  movl $56, %eax\n  syscall\n  testq %rax, %rax\n  jz 1f\n  ret\n"
    "1: xorl %ebp, %ebp\n  popq %rax\n  popq %rdi\n  call *%rax\n  hlt\n"
    ".hidden signal_return\n.type signal_return,@function\n"
    "signal_return:\n  movl $15, %eax\n  syscall\n");
extern void signal_return(void);

#elif defined(__aarch64__)

enum { PAGE_MAX = 65536 };

static inline i64 sys(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
  register i64 x8 __asm__("x8") = nr;
  register i64 x0 __asm__("x0") = a;
  register i64 x1 __asm__("x1") = b;
  register i64 x2 __asm__("x2") = c;
  register i64 x3 __asm__("x3") = d;
  register i64 x4 __asm__("x4") = e;
  register i64 x5 __asm__("x5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory", "cc");
  return x0;
}

__asm__(
    ".text\n.globl _start\n.hidden _start\n.type _start,%function\n"
    "_start:\n  mov x29, #0\n  mov x30, #0\n  mov x0, sp\n  and x1, x0, #-16\n  mov sp, x1\n  bl agent_main\n  brk #0\n"
    // Here the kernel takes tls before child_tid; both are zero, so the order does not matter.
    ".hidden clone_call\n.type clone_call,%function\n"
    "clone_call:\n  and x1, x1, #-16\n  stp x3, x4, [x1, #-16]!\n  mov x3, #0\n  mov x4, #0\n  mov x8, #220\n  svc #0\n"
    "  cbz x0, 1f\n  ret\n1: ldp x1, x0, [sp], #16\n  mov x29, #0\n  mov x30, #0\n  blr x1\n  brk #0\n");

#else
#error "this architecture is not supported"
#endif

extern i64 clone_call(u64 flags, void *stack_top, i32 *parent_tid, void (*run)(void *), void *arg);

#define SYS1(nr, a) sys(nr, (i64)(a), 0, 0, 0, 0, 0)
#define SYS2(nr, a, b) sys(nr, (i64)(a), (i64)(b), 0, 0, 0, 0)
#define SYS3(nr, a, b, c) sys(nr, (i64)(a), (i64)(b), (i64)(c), 0, 0, 0)
#define SYS4(nr, a, b, c, d) sys(nr, (i64)(a), (i64)(b), (i64)(c), (i64)(d), 0, 0)
#define SYS5(nr, a, b, c, d, e) sys(nr, (i64)(a), (i64)(b), (i64)(c), (i64)(d), (i64)(e), 0)

// The compiler may ask for these even in freestanding code.
__attribute__((used)) void *memcpy(void *to, const void *from, size_t n) {
  u8 *t = to;
  const u8 *f = from;
  while (n--) *t++ = *f++;
  return to;
}
__attribute__((used)) void *memset(void *to, int value, size_t n) {
  u8 *t = to;
  while (n--) *t++ = (u8)value;
  return to;
}

static void block_signals(u64 *old) {
  u64 all = ~0ull;
  SYS4(__NR_rt_sigprocmask, SIG_SETMASK_, ADDRESS(&all), ADDRESS(old), sizeof all);
}

_Noreturn static void leave(int status) {
  for (;;) SYS1(__NR_exit_group, status);
}

// ---------------------------------------------------------------------------------------------------------------------
// The agent.

enum operation {
  OP_SYSCALL = 0,  // make syscall `nr`
  OP_CLONE = 1,    // arg[0]: clone flags; the received fd is the new agent's socket; answers the pid, with a pidfd if asked
  OP_REAP = 2,     // from now on wait for children; arg[0]: the pid to report on; arg[1]: fd of the "children" file, or one
                   // of enum children
  OP_HOLD = 5,     // become a holder: execute the received fd (none: as is) with argv arg[0]; answers only if that fails
  OP_EXEC = 4,     // execve(arg[0], arg[1], arg[2]) with signal mask arg[3]; answers only if it fails, all blocked again
  OP_TTY = 3,      // at the end restore this terminal; received fd: tty (none: leave it alone); arg[0]: our group; arg[1]:
                   // the shell's; payload: termios
};

enum children {
  ENDED_FOR_US = -1,     // by the kernel, this process being PID 1
  END_BY_THEMSELVES = -2  // the one to report on does, with all that it looks after
};

enum request_flags {
  REPLY_FD = 1,  // the result is an fd: send it, and close it here
  KEEP_FDS = 2,  // do not close the received fds after the call
};

struct request {
  u32 operation;
  u32 nr;
  i64 arg[6];
  u32 pointers;      // bit i: arg[i] is an offset into the payload
  u32 fds;           // bit i: arg[i] is an index into the received fds
  u32 flags;         // enum request_flags
  u32 relocs_at;     // offset in the payload of `relocs` u32 offsets, each of a u64 that is itself an offset to be made
  u32 relocs;        // a pointer; an offset of ~0 stands for NULL
  u32 reply_at;      // the part of the payload that the answer carries
  u32 reply_length;
  u32 reserved;
};

enum answer_kind { ANSWER = 0, EVENT_CHILD = 1 };

struct answer {
  u32 kind;
  u32 status;  // EVENT_CHILD: wait status
  i64 result;  // ANSWER: the syscall's result; EVENT_CHILD: pid
};

enum { PAYLOAD_MAX = 65536, FDS_MAX = 8, TERMIOS_SIZE = 36 };

struct message {
  void *name;
  u32 name_length;
  void *iov;
  u64 iov_length;
  void *control;
  u64 control_length;
  i32 flags;
};
struct part {
  const void *base;
  u64 length;
};
struct rights {
  u64 length;
  i32 level, type;
  i32 fd[FDS_MAX];
};
struct poll {
  i32 fd;
  int16_t events, revents;
};

static struct {
  struct request request;
  u8 payload[PAYLOAD_MAX];
} packet __attribute__((aligned(16)));

static struct {
  i32 socket, sigchld, children, tty;
  i32 main_pid, tty_group, shell_group;
  u32 termios[TERMIOS_SIZE / 4];
} self;

static void close_fd(i32 *fd) {
  if (*fd >= 0) SYS1(__NR_close, *fd);
  *fd = -1;
}

static void send_answer(u32 kind, u32 status, i64 result, const void *data, u32 length, i32 fd) {
  struct answer answer = {kind, status, result};
  struct part parts[2] = {{&answer, sizeof answer}, {data, length}};
  struct rights rights = {offsetof(struct rights, fd) + sizeof(i32), SOL_SOCKET_, SCM_RIGHTS_, {fd}};
  struct message m = {0, 0, parts, 2, 0, 0, 0};
  if (fd >= 0) {
    m.control = &rights;
    m.control_length = 24;  // CMSG_SPACE(sizeof(int))
  }
  i64 n;
  do n = SYS3(__NR_sendmsg, self.socket, ADDRESS(&m), MSG_NOSIGNAL_);
  while (n == -EINTR_);
}

static i64 wait_any(i32 *status, i32 flags) {
  i64 pid;
  do pid = SYS4(__NR_wait4, -1, ADDRESS(status), flags, 0);
  while (pid == -EINTR_);
  return pid;
}

static void reap(void) {
  u8 drained[128];
  while (SYS3(__NR_read, self.sigchld, ADDRESS(drained), sizeof drained) > 0) continue;
  for (;;) {
    i32 status = 0;
    i64 pid = wait_any(&status, WNOHANG_ | WUNTRACED_ | WCONTINUED_);
    if (pid <= 0) return;
    if (pid == self.main_pid) send_answer(EVENT_CHILD, (u32)status, pid, 0, 0, -1);
  }
}

// Ends every descendant. PID 1 need not: the kernel does it for it. Nor need, or can, who looks after an agent in another
// pid namespace: killing that one would set free what it looks after. Orphans arrive here one generation after the other
// (this process is a subreaper), so the list is read again until there is no child left, or none that we may kill.
static void kill_children(void) {
  i32 status;
  if (self.children == END_BY_THEMSELVES && self.main_pid > 0) {
    SYS2(__NR_kill, self.main_pid, SIGCONT_);
    while (wait_any(&status, 0) > 0) continue;
  }
  if (self.children < 0 || SYS1(__NR_getpid, 0) == 1) return;
  for (;;) {
    int killed = 0;
    i64 n = SYS4(__NR_pread64, self.children, ADDRESS(packet.payload), PAYLOAD_MAX - 1, 0);
    if (n < 0) n = 0;
    packet.payload[n] = 0;
    for (i64 i = 0, pid = 0; i <= n; i++) {
      u8 c = packet.payload[i];
      if (c >= '0' && c <= '9') {
        pid = pid * 10 + (c - '0');
      } else if (pid) {
        if (SYS2(__NR_kill, pid, SIGKILL_) == 0) killed = 1;
        pid = 0;
      }
    }
    i64 pid = wait_any(&status, killed ? 0 : WNOHANG_);
    if (pid <= 0) return;
  }
}

// The foreground process group, or 0 if the shell that has started us is in the foreground: then it has taken over, and
// its settings are not ours to touch.
static i32 foreground(void) {
  i32 group = 0;
  if (self.tty < 0 || SYS3(__NR_ioctl, self.tty, TIOCGPGRP_, ADDRESS(&group)) || group <= 0) return 0;
  return group == self.shell_group && group != self.tty_group ? 0 : group;
}

// Restores the settings if they have changed. They are read before the foreground: if that is still the command's
// afterwards, it is not a shell that has changed them. If the shell is there already, settings that no line editor makes
// (those have ICANON off and OPOST on) are the command's all the same: not every shell restores them.
static void restore_settings(void) {
  u32 now[TERMIOS_SIZE / 4], differ = 0;  // {c_iflag, c_oflag, c_cflag, c_lflag, ...}
  if (self.tty < 0 || SYS3(__NR_ioctl, self.tty, TCGETS_, ADDRESS(now))) return;
  for (int i = 0; i < TERMIOS_SIZE / 4; i++) differ |= now[i] ^ self.termios[i];
  int editing = !(now[3] & ICANON_) && now[1] & OPOST_;
  if (differ && (foreground() || !editing)) SYS3(__NR_ioctl, self.tty, TCSETS_, ADDRESS(self.termios));
}

// Gives the terminal back as it was; we are only told of one while the command has its foreground. The settings at once, since a shell that waits for us hears of our end right after
// this agent does; again, with the foreground, when nobody is left who could change them; but not if the foreground is
// that of another living group, neither ours nor one that we have just ended.
_Noreturn static void finish(void) {
  restore_settings();
  kill_children();
  i32 group = foreground();
  if (group && (group == self.tty_group || SYS2(__NR_kill, -group, 0) == -ESRCH_)) {
    restore_settings();
    if (group != self.tty_group) SYS3(__NR_ioctl, self.tty, TIOCSPGRP_, ADDRESS(&self.tty_group));
  }
  leave(0);
}

// Receives one request into `packet`; answers the payload's length, and the fds that came with it.
static i64 receive(i32 *fds, int *count) {
  struct part part = {&packet, sizeof packet};
  struct rights rights;
  struct message m = {0, 0, &part, 1, &rights, sizeof rights, 0};
  i64 n;
  do n = SYS3(__NR_recvmsg, self.socket, ADDRESS(&m), MSG_CMSG_CLOEXEC_);
  while (n == -EINTR_);
  if (n <= 0) finish();
  *count = 0;
  if (m.control_length >= offsetof(struct rights, fd) && rights.type == SCM_RIGHTS_) {
    *count = (int)((rights.length - offsetof(struct rights, fd)) / sizeof(i32));
    for (int i = 0; i < *count; i++) fds[i] = rights.fd[i];
  }
  if (n < (i64)sizeof packet.request || m.flags & (MSG_TRUNC_ | MSG_CTRUNC_)) return -EINVAL_;
  return n - (i64)sizeof packet.request;
}

// Turns offsets into addresses and indices into fds; refuses whatever lies outside of the payload.
static i64 resolve(struct request *r, i64 length, const i32 *fds, int count) {
  if (r->reply_at > length || r->reply_length > length - r->reply_at) return -EINVAL_;
  if (r->relocs_at > length || r->relocs > (u64)(length - r->relocs_at) / 4) return -EINVAL_;
  for (u32 i = 0; i < r->relocs; i++) {
    u32 at;
    u64 target;
    memcpy(&at, packet.payload + r->relocs_at + 4 * i, 4);
    if (length < 8 || at > length - 8) return -EINVAL_;
    memcpy(&target, packet.payload + at, 8);
    if (target != ~0ull && target > (u64)length) return -EINVAL_;
    target = target == ~0ull ? 0 : (u64)ADDRESS(packet.payload) + target;
    memcpy(packet.payload + at, &target, 8);
  }
  for (int i = 0; i < 6; i++) {
    if (r->pointers >> i & 1) {
      if (r->arg[i] < 0 || r->arg[i] > length) return -EINVAL_;
      r->arg[i] += ADDRESS(packet.payload);
    } else if (r->fds >> i & 1) {
      if (r->arg[i] < 0 || r->arg[i] >= count) return -EINVAL_;
      r->arg[i] = fds[r->arg[i]];
    }
  }
  return 0;
}

static const char HOLDER[] = "penne-holder";

// The holder: what is left of an agent that only keeps the namespaces it is in, on nobody's behalf. It depends on no
// socket and has no descriptors; the kernel reaps for it, as it ignores SIGCHLD. Two signals end it, and as PID 1 of its
// namespace it minds them only from outside: TERM at once; USR1 as soon as no other process is left in its pid namespace.
_Noreturn static void hold(int dumpable) {
  u64 ignore[4] = {1}, wanted = 1ull << (SIGTERM_ - 1) | 1ull << (SIGUSR1_ - 1);
  i64 second[2] = {1, 0};
  i32 info[32], status, leaving = 0, init = SYS1(__NR_getpid, 0) == 1;
  block_signals(0);
  SYS3(__NR_close_range, 0, 0xffffffffu, 0);
  SYS4(__NR_rt_sigaction, SIGCHLD_, ADDRESS(ignore), 0, 8);
  while (wait_any(&status, WNOHANG_) > 0) continue;
  SYS5(__NR_prctl, PR_SET_NAME_, ADDRESS(HOLDER), 0, 0, 0);
  SYS5(__NR_prctl, PR_SET_DUMPABLE_, dumpable, 0, 0, 0);
  for (;;) {
    i64 signal = SYS4(__NR_rt_sigtimedwait, ADDRESS(&wanted), ADDRESS(info), leaving ? ADDRESS(second) : 0, sizeof wanted);
    // {signo, errno, code, padding, pid}: who is outside has no pid here. The kernel says so for kill(2) alone, whose code
    // is 0; with the others of rt_sigqueueinfo(2) somebody inside may have written anything there.
    if (signal > 0 && init && (info[2] || info[4])) continue;
    if (signal == SIGTERM_ || (signal == SIGUSR1_ && !init)) leave(0);
    if (signal == SIGUSR1_) leaving = 1;
    if (leaving && SYS2(__NR_kill, -1, 0) == -ESRCH_) leave(0);
  }
}

// A plain fork with the given flags; the child serves the received socket and shares no other role with its parent.
static i64 clone_agent(u64 flags, i32 socket, i32 *pidfd) {
  i64 pid = SYS5(__NR_clone, flags | SIGCHLD_, 0, ADDRESS(pidfd), 0, 0);
  if (pid == 0) {
    close_fd(&self.socket);
    close_fd(&self.sigchld);
    close_fd(&self.children);
    close_fd(&self.tty);
    self.main_pid = 0;
    self.socket = socket;
  }
  return pid;
}

static void serve_one(void) {
  struct request *r = &packet.request;
  i32 fds[FDS_MAX], reply_fd = -1;
  int count = 0;
  i64 length = receive(fds, &count);
  i64 result = length < 0 ? length : resolve(r, length, fds, count);
  int valid = result == 0;
  u32 flags = valid ? r->flags : 0;
  if (valid) {
    switch (r->operation) {
      case OP_SYSCALL:
        result = sys(r->nr, r->arg[0], r->arg[1], r->arg[2], r->arg[3], r->arg[4], r->arg[5]);
        if (flags & REPLY_FD && result >= 0) reply_fd = (i32)result;
        break;
      case OP_CLONE:
        if (count != 1) {
          result = -EINVAL_;
          break;
        }
        result = clone_agent((u64)r->arg[0], fds[0], &reply_fd);
        if (result == 0) return;  // the child: its socket has nothing to be answered yet
        break;
      case OP_REAP: {
        u64 mask = 1ull << (SIGCHLD_ - 1);
        self.main_pid = (i32)r->arg[0];
        self.children = (i32)r->arg[1];
        if (self.sigchld < 0)
          self.sigchld = (i32)SYS4(__NR_signalfd4, -1, ADDRESS(&mask), sizeof mask, SFD_CLOEXEC_ | SFD_NONBLOCK_);
        result = self.sigchld < 0 ? self.sigchld : 0;
        break;
      }
      case OP_EXEC: {
        u64 mask = (u64)r->arg[3];
        SYS4(__NR_rt_sigprocmask, SIG_SETMASK_, ADDRESS(&mask), 0, sizeof mask);
        result = SYS3(__NR_execve, r->arg[0], r->arg[1], r->arg[2]);
        block_signals(0);
        break;
      }
      case OP_HOLD: {
        u64 environment = 0;
        if (count == 0) hold(1);
        result = SYS5(__NR_execveat, fds[0], ADDRESS(""), r->arg[0], ADDRESS(&environment), AT_EMPTY_PATH_);
        break;
      }
      case OP_TTY:
        close_fd(&self.tty);
        if (count == 0) break;
        if (count != 1 || length != TERMIOS_SIZE) {
          result = -EINVAL_;
          break;
        }
        self.tty = fds[0];
        self.tty_group = (i32)r->arg[0];
        self.shell_group = (i32)r->arg[1];
        memcpy(self.termios, packet.payload, TERMIOS_SIZE);
        break;
      default:
        result = -EINVAL_;
    }
  }
  if (!(flags & KEEP_FDS))
    for (int i = 0; i < count; i++) SYS1(__NR_close, fds[i]);
  send_answer(ANSWER, 0, result, packet.payload + (valid ? r->reply_at : 0), valid ? r->reply_length : 0, reply_fd);
  if (reply_fd >= 0) SYS1(__NR_close, reply_fd);
  // A child may have ended before there was a signalfd to tell of it.
  if (valid && r->operation == OP_REAP && result == 0) reap();
}

_Noreturn static void agent(i32 socket) {
  u64 action[4] = {0};  // a caller that ignores SIGCHLD would have our children waited for by the kernel
  SYS4(__NR_rt_sigaction, SIGCHLD_, ADDRESS(action), 0, 8);
  self.socket = socket;
  self.sigchld = self.children = self.tty = -1;
  for (;;) {
    if (self.sigchld >= 0) {
      struct poll p[2] = {{self.socket, POLLIN_, 0}, {self.sigchld, POLLIN_, 0}};
      if (SYS5(__NR_ppoll, ADDRESS(p), 2, 0, 0, 0) < 0) continue;
      if (p[1].revents) reap();
      if (!p[0].revents) continue;
    }
    serve_one();
  }
}

static int is_holder(const char *name) {
  const char *wanted = HOLDER;
  while (*wanted && *name == *wanted) name++, wanted++;
  return *name == *wanted;
}

// Entry of the executed agent: argv[1] is the number of its socket, in decimal. With two arguments, which are for people
// to read, it is a holder; but only under that name: a script inside whose interpreter is /proc/self/exe must not be one.
__attribute__((used)) _Noreturn static void agent_main(const i64 *stack) {
  i32 socket = 0;
  if (stack[0] == 3 && is_holder((const char *)(uintptr_t)stack[1])) hold(0);
  if (stack[0] != 2) leave(127);
  for (const char *c = (const char *)(uintptr_t)stack[2]; *c >= '0' && *c <= '9'; c++) socket = socket * 10 + (*c - '0');
  SYS3(__NR_fcntl, socket, F_SETFD_, FD_CLOEXEC_);  // a program that takes the agent's place must not have it
  agent(socket);
}

// ---------------------------------------------------------------------------------------------------------------------
// The library.

enum spawn_how { SPAWN_EXEC = 0, SPAWN_FORK = 1, SPAWN_INHERIT = 2 };  // the last one: exec, with all that is inheritable

struct spawn {
  u64 flags;       // namespaces (and CLONE_PARENT) of the agent
  u64 stack;       // address of a stack for the child ...
  u64 stack_size;  // ... and its size
  u64 argv;        // {name, decimal number of socket, NULL}
  i32 socket;      // the agent's end; the child has it under the same number
  i32 image;       // memfd of this ELF
  i32 how;         // enum spawn_how
  i32 pidfd;       // out: a pidfd of the agent
  i64 error;       // out: 0, or the -errno of execveat (then the child has exited and must be reaped)
  i64 pid;         // out, SPAWN_FORK
};

// Closes what the agent must not have: everything above stderr but the two fds given.
static void close_others(i32 a, i32 b) {
  i32 low = a < b ? a : b, high = a < b ? b : a;
  if (low > 3) SYS3(__NR_close_range, 3, low - 1, 0);
  if (high - low > 1) SYS3(__NR_close_range, low + 1, high - 1, 0);
  SYS3(__NR_close_range, high + 1, 0xffffffffu, 0);
}

// A process in a new user namespace has all capabilities there, but its ids are not mapped yet, so it is not root and an
// exec would take them all away. Only ambient ones survive.
static void keep_capabilities(void) {
  u32 header[2] = {0x20080522, 0};
  struct {
    u32 effective, permitted, inheritable;
  } sets[2];
  if (SYS2(__NR_capget, ADDRESS(header), ADDRESS(sets))) return;
  for (int i = 0; i < 2; i++) sets[i].inheritable = sets[i].permitted;
  if (SYS2(__NR_capset, ADDRESS(header), ADDRESS(sets))) return;
  for (i64 cap = 0; cap < 64; cap++)
    if (SYS5(__NR_prctl, PR_CAP_AMBIENT_, PR_CAP_AMBIENT_RAISE_, cap, 0, 0) == -EINVAL_) break;
}

static void spawn_exec(void *argument) {
  struct spawn *s = argument;
  u64 environment = 0;
  if (s->flags & CLONE_NEWUSER_) keep_capabilities();
  if (s->how != SPAWN_INHERIT) close_others(s->socket, s->image);
  SYS3(__NR_fcntl, s->socket, F_SETFD_, 0);
  s->error = SYS5(__NR_execveat, s->image, ADDRESS(""), s->argv, ADDRESS(&environment), AT_EMPTY_PATH_);
  leave(127);
}

extern const u8 __ehdr_start[] __attribute__((visibility("hidden")));
extern const u8 _end[] __attribute__((visibility("hidden")));
static u8 fork_stack[8192] __attribute__((aligned(16)));

// The agent without an exec: forget everything of the program we were forked from but this ELF.
static void forked_agent(void *argument) {
  i32 socket = *(i32 *)argument;
  u64 page = PAGE_MAX, start = (u64)ADDRESS(__ehdr_start) & ~(page - 1), end = ((u64)ADDRESS(_end) + page - 1) & ~(page - 1);
  struct {
    u64 handler, flags, restorer, mask;
  } action;
  for (int i = 1; i <= SIG_COUNT; i++) {  // handlers point into what is about to be unmapped
    if (SYS4(__NR_rt_sigaction, i, 0, ADDRESS(&action), 8) || action.handler <= 1) continue;
    memset(&action, 0, sizeof action);
    SYS4(__NR_rt_sigaction, i, ADDRESS(&action), 0, 8);
  }
  close_others(socket, socket);
  SYS2(__NR_munmap, 0, start);
  for (int bits = 57; bits >= 36; bits--)  // the size of the address space is the kernel's choice
    if ((1ull << bits) - page > end && SYS2(__NR_munmap, end, (1ull << bits) - page - end) == 0) break;
  agent(socket);
}

// Runs as a vfork child: a child that shares the memory has no rseq area registered, and hands that on. Without this
// step the forked agent would be killed when the kernel next writes to the area, unmapped by then.
static void spawn_fork(void *argument) {
  struct spawn *s = argument;
  static i32 socket;  // not *s: memory of the JavaScript heap does not survive a fork
  socket = s->socket;
  i64 pid = clone_call((s->flags & ~(u64)CLONE_VM_) | CLONE_PARENT_ | CLONE_PIDFD_ | SIGCHLD_, fork_stack + sizeof fork_stack,
                       &s->pidfd, forked_agent, &socket);
  s->pid = pid;
  leave(0);
}

// Starts an agent; answers its pid or -errno. All signals are blocked around the clone, and stay blocked in the agent.
static i64 spawn(struct spawn *s) {
  u64 mask;
  void *top = (void *)(uintptr_t)(s->stack + s->stack_size);
  i64 pid;
  s->error = 0;
  s->pidfd = -1;
  block_signals(&mask);
  if (s->how != SPAWN_FORK) {
    pid = clone_call(s->flags | CLONE_VM_ | CLONE_VFORK_ | CLONE_PIDFD_ | SIGCHLD_, top, &s->pidfd, spawn_exec, s);
  } else {
    pid = clone_call(CLONE_VM_ | CLONE_FILES_ | CLONE_VFORK_ | SIGCHLD_, top, 0, spawn_fork, s);  // the pidfd is to be ours
    if (pid > 0) {
      i32 status;
      i64 reaped;
      do reaped = SYS4(__NR_wait4, pid, ADDRESS(&status), 0, 0);
      while (reaped == -EINTR_);
      pid = s->pid;
    }
  }
  SYS4(__NR_rt_sigprocmask, SIG_SETMASK_, ADDRESS(&mask), 0, sizeof mask);
  return pid;
}

static i32 signal_pipe = -1;

struct signal_info {
  i32 signo, error, code, padding, pid;
};

static void on_signal(i32 signo, const struct signal_info *info, const void *context) {
  i32 record[3] = {signo, info->code, info->pid};
  (void)context;
  SYS3(__NR_write, signal_pipe, ADDRESS(record), sizeof record);
}

// From now on `signo` writes {signo, si_code, si_pid} to `pipe` (if `pipe` is -1, the default action is back). Answers 0
// or -errno. With `unless_ignored` a signal that is ignored stays so, and the answer is 1.
static i64 set_signal(i32 signo, i32 pipe, i32 unless_ignored) {
  struct {
    u64 handler, flags, restorer, mask;
  } action = {0, 0, 0, 0};
  if (unless_ignored) {
    i64 error = SYS4(__NR_rt_sigaction, signo, 0, ADDRESS(&action), 8);
    if (error) return error;
    if (action.handler == 1) return 1;
    memset(&action, 0, sizeof action);
  }
  if (pipe >= 0) {
    signal_pipe = pipe;
    action.handler = (u64)ADDRESS(on_signal);
    action.flags = SA_SIGINFO_ | SA_RESTART_;
#if defined(__x86_64__)
    action.flags |= SA_RESTORER_;
    action.restorer = (u64)ADDRESS(signal_return);
#endif
  }
  return SYS4(__NR_rt_sigaction, signo, ADDRESS(&action), 0, 8);
}

enum shim_function { SHIM_SPAWN = -1, SHIM_SIGNAL = -2 };

// A syscall, or one of the functions above under a negative number: binding a symbol costs JavaScript more time at
// start-up than this comparison ever will.
EXPORT i64 shim(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
  if (nr >= 0) return sys(nr, a, b, c, d, e, f);
  if (nr == SHIM_SPAWN) return spawn((struct spawn *)(uintptr_t)a);
  if (nr == SHIM_SIGNAL) return set_signal((i32)a, (i32)b, (i32)c);
  return -EINVAL_;
}

enum { RING_BUSY = 1u << 31, RING_DISCARD = 1u << 30 };

// Takes records out of a BPF ring buffer, without their headers and one after the other, as many as are complete and fit.
// Here rather than in JavaScript because the two sides agree by acquire and release: a record is there once its length
// is, and its place may be written again once the consumer's position is past it. Answers how many bytes were taken.
static i64 ring_take(u64 *consumer, const u64 *producer, const u8 *data, u64 mask, u64 *out, u64 size) {
  u64 at = __atomic_load_n(consumer, __ATOMIC_RELAXED);
  u64 end = __atomic_load_n(producer, __ATOMIC_ACQUIRE);
  u64 words = size / 8, taken = 0;
  while (at < end) {
    const u8 *record = data + (at & mask);  // the data is mapped twice in a row, so a record never wraps
    u32 length = __atomic_load_n((const u32 *)(const void *)record, __ATOMIC_ACQUIRE);
    if (length & RING_BUSY) break;
    u64 n = ((length & ~RING_DISCARD) + 7) / 8;
    if (!(length & RING_DISCARD)) {
      const u64 *from = (const u64 *)(const void *)(record + 8);
      if (n > words - taken) break;
      for (u64 i = 0; i < n; i++) out[taken + i] = from[i];
      taken += n;
    }
    at += 8 * (1 + n);
  }
  __atomic_store_n(consumer, at, __ATOMIC_RELEASE);
  return (i64)(8 * taken);
}

// The same for the hot paths: every number of JavaScript is a double, and passing doubles is the only way to hand over an
// address or take a result without making a BigInt. An address has at most 52 bits, which a double holds exactly. A
// negative number stands for ring_take().
EXPORT double quick(double nr, double a, double b, double c, double d, double e, double f) {
  if (nr < 0)
    return (double)ring_take((u64 *)(uintptr_t)a, (const u64 *)(uintptr_t)b, (const u8 *)(uintptr_t)c, (u64)d,
                             (u64 *)(uintptr_t)e, (u64)f);
  return (double)sys((i64)nr, (i64)a, (i64)b, (i64)c, (i64)d, (i64)e, (i64)f);
}
