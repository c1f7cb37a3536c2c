// SPDX-License-Identifier: MIT
// libshim.c: raw syscalls for TypeScript and, when executed, the agent that makes them inside a namespace.
//
// One freestanding ELF, two uses. Loaded with dlopen it is a library with the two functions at the end of this file.
// Executed (or forked, see spawn()) it is the *agent*: a single-threaded process of a few pages that receives requests
// on a SOCK_SEQPACKET socket, makes the syscall that each one describes, and answers with the result. TypeScript
// decides which syscalls are made, and in which order. Only what must work after penne has been killed is decided here:
// how the agent ends its descendants and gives the terminal back, and when a holder ends.
//
// Results follow the kernel's convention everywhere: a value, or -errno. There is no libc, no errno and no allocation.

#include <stddef.h>
#include <stdint.h>

#include <asm/errno.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/socket.h>
#include <asm/termbits.h>
#include <asm/unistd.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/signal.h>
#include <linux/signalfd.h>
#include <linux/time_types.h>
#include <linux/uio.h>
#include <linux/wait.h>

typedef int64_t i64;
typedef uint64_t u64;
typedef int32_t i32;
typedef uint32_t u32;
typedef uint8_t u8;

// Not in the kernel's headers for programs.
enum { SIG_COUNT = 64, MSG_CTRUNC = 0x08, MSG_TRUNC = 0x20, MSG_NOSIGNAL = 0x4000, MSG_CMSG_CLOEXEC = 0x40000000 };
enum { SCM_RIGHTS = 1 };

// ---------------------------------------------------------------------------------------------------------------------
// Architectures: the syscall itself, the entry point, clone with a stack of its own, and the return from a signal.

#if defined(__x86_64__)

enum { PAGE_MAX = 4096, ACTION_FLAGS = SA_SIGINFO | SA_RESTART | SA_RESTORER };

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

__asm__(".text\n.globl _start\n.hidden _start\n.type _start,@function\n"
        "_start:\n  xorl %ebp, %ebp\n  movq %rsp, %rdi\n  andq $-16, %rsp\n  call agent_main\n  hlt\n"
        ".hidden clone_call\n.type clone_call,@function\n"
        "clone_call:\n  andq $-16, %rsi\n  subq $16, %rsi\n  movq %rcx, 0(%rsi)\n  movq %r8, 8(%rsi)\n"
        "  xorl %r10d, %r10d\n  xorl %r8d, %r8d\n  movl $56, %eax\n  syscall\n  testq %rax, %rax\n  jz 1f\n  ret\n"
        "1: xorl %ebp, %ebp\n  popq %rax\n  popq %rdi\n  call *%rax\n  hlt\n"
        ".hidden signal_return\n.type signal_return,@function\n"
        "signal_return:\n  movl $15, %eax\n  syscall\n");
extern void signal_return(void);

#elif defined(__aarch64__)

enum { PAGE_MAX = 65536, ACTION_FLAGS = SA_SIGINFO | SA_RESTART };

static inline i64 sys(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
  register i64 x8 __asm__("x8") = nr;
  register i64 x0 __asm__("x0") = a;
  register i64 x1 __asm__("x1") = b;
  register i64 x2 __asm__("x2") = c;
  register i64 x3 __asm__("x3") = d;
  register i64 x4 __asm__("x4") = e;
  register i64 x5 __asm__("x5") = f;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
  return x0;
}

// Here the kernel takes tls before child_tid; both are zero, so the order does not matter.
__asm__(".text\n.globl _start\n.hidden _start\n.type _start,%function\n"
        "_start:\n  mov x29, #0\n  mov x30, #0\n  mov x0, sp\n  and x1, x0, #-16\n  mov sp, x1\n  bl agent_main\n"
        "  brk #0\n"
        ".hidden clone_call\n.type clone_call,%function\n"
        "clone_call:\n  and x1, x1, #-16\n  stp x3, x4, [x1, #-16]!\n  mov x3, #0\n  mov x4, #0\n  mov x8, #220\n"
        "  svc #0\n  cbz x0, 1f\n  ret\n"
        "1: ldp x1, x0, [sp], #16\n  mov x29, #0\n  mov x30, #0\n  blr x1\n  brk #0\n");
static void (*const signal_return)(void) = 0; // the kernel has its own

#else
#error "this architecture is not supported"
#endif

// clone(2); the child calls run(argument) on the given stack, and must not return from it.
extern i64 clone_call(u64 flags, void *stack_top, i32 *pidfd, void (*run)(void *), void *argument);

// A syscall with up to six arguments, numbers or pointers.
#define SYS(...) SYS_OF(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define SYS_OF(nr, a, b, c, d, e, f, ...) sys(nr, (i64)(a), (i64)(b), (i64)(c), (i64)(d), (i64)(e), (i64)(f))

// A syscall that is made again when a signal has interrupted it.
#define RETRY(...)                 \
  ({                               \
    i64 result_;                   \
    do result_ = SYS(__VA_ARGS__); \
    while (result_ == -EINTR);     \
    result_;                       \
  })

// The compiler may call these even in freestanding code.
__attribute__((used)) void *memcpy(void *to, const void *from, size_t n) {
  for (size_t i = 0; i < n; i++) ((u8 *)to)[i] = ((const u8 *)from)[i];
  return to;
}

__attribute__((used)) void *memset(void *to, int value, size_t n) {
  for (size_t i = 0; i < n; i++) ((u8 *)to)[i] = (u8)value;
  return to;
}

static int same(const void *a, const void *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (((const u8 *)a)[i] != ((const u8 *)b)[i]) return 0;
  return 1;
}

_Noreturn static void leave(int status) {
  for (;;) SYS(__NR_exit_group, status);
}

static void block_signals(u64 *old) {
  u64 all = ~0ull;
  SYS(__NR_rt_sigprocmask, SIG_SETMASK, &all, old, sizeof all);
}

static void set_mask(u64 mask) {
  SYS(__NR_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
}

static i64 set_action(i32 signo, const struct sigaction *action) {
  return SYS(__NR_rt_sigaction, signo, action, 0, sizeof(u64));
}

// ---------------------------------------------------------------------------------------------------------------------
// The wire format, mirrored in ffi/agent/wire.ts: a request is one packet, `struct request` followed by its payload.

enum operation {
  OP_SYSCALL, // make syscall `nr`
  OP_CLONE,   // clone with flags arg[0] an agent whose socket is the received fd; answers its pid, and a pidfd if asked
  OP_REAP,    // wait for children, and report on pid arg[0]; arg[1] to arg[3]: lists of what to kill at the end, or -1
  OP_TTY,     // at the end restore the terminal that is the received fd (none: leave it alone) to process group arg[0]
              // and the termios in the payload, unless the shell's group arg[1] has it
  OP_EXEC,    // execve(arg[0], arg[1], arg[2]) with signal mask arg[3] and the received fds as stdin, stdout, stderr;
              // answers only if that fails, all blocked again
  OP_HOLD,    // become a holder: execute the first received fd (with arg[1] go on as is) with argv arg[0]; one more
              // fd has the filter of its calls; answers only on failure
  OP_CONFINE, // keep the capabilities arg[0], and no call but those that the filter in the payload permits
};

enum request_flags {
  REPLY_FD = 1, // the result is an fd: send it, and close it here
  KEEP_FDS = 2, // do not close the received fds after the call
};

struct request {
  u32 operation;
  u32 nr;
  i64 arg[6];
  u32 pointers;  // bit i: arg[i] is an offset in the payload
  u32 fds;       // bit i: arg[i] is an index into the received fds
  u32 flags;     // enum request_flags
  u32 relocs_at; // offset in the payload of `relocs` u32 offsets, each of a u64 that is itself an offset, to be made a
  u32 relocs;    // pointer; the offset ~0 stands for NULL
  u32 reply_at;  // the part of the payload that the answer carries
  u32 reply_length;
  u32 reserved;
};

enum answer_kind { ANSWER, EVENT_CHILD };

struct answer {
  u32 kind;
  u32 status; // EVENT_CHILD: wait status
  i64 result; // ANSWER: result of the syscall; EVENT_CHILD: pid
};

enum { PAYLOAD_MAX = 65536, FDS_MAX = 8, LISTS_MAX = 3 };
enum { LATE_MAX = 300 }; // how often finish() waits 10 ms in vain

_Static_assert(sizeof(struct request) == 88 && sizeof(struct answer) == 16 && sizeof(struct termios) == 36, "wire.ts");

// The kernel's struct user_msghdr, and a control message with descriptors.
struct message {
  void *name;
  u32 name_length;
  struct iovec *parts;
  u64 count;
  void *control;
  u64 control_length;
  i32 flags;
};

struct rights {
  u64 length;
  i32 level, type;
  i32 fd[FDS_MAX];
};

// ---------------------------------------------------------------------------------------------------------------------
// The agent: its state, and answering.

static struct {
  struct request request;
  u8 payload[PAYLOAD_MAX];
} packet __attribute__((aligned(16)));

static struct {
  i32 socket, sigchld, tty;
  i32 lists[LISTS_MAX]; // of children, which finish() kills
  i32 main_pid, tty_group, shell_group;
  struct termios termios;
} self;

static void close_fd(i32 *fd) {
  if (*fd >= 0) SYS(__NR_close, *fd);
  *fd = -1;
}

static i64 send_packet(u32 kind, u32 status, i64 result, void *data, u32 length, i32 fd) {
  struct answer answer = {kind, status, result};
  struct iovec parts[2] = {{&answer, sizeof answer}, {data, length}};
  struct rights rights = {offsetof(struct rights, fd) + sizeof(i32), SOL_SOCKET, SCM_RIGHTS, {fd}};
  struct message m = {0, 0, parts, 2, 0, 0, 0};
  if (fd >= 0) {
    m.control = &rights;
    m.control_length = 24; // CMSG_SPACE(sizeof(int))
  }
  return RETRY(__NR_sendmsg, self.socket, &m, MSG_NOSIGNAL);
}

// ---------------------------------------------------------------------------------------------------------------------
// The agent: its children.

static i64 wait_for(i64 pid, i32 *status, i32 flags) {
  return RETRY(__NR_wait4, pid, status, flags, 0);
}

// Reports on the child that is reported on; the result is an error of sending.
static i64 reap(void) {
  u8 drained[sizeof(struct signalfd_siginfo)];
  i32 status;
  i64 pid, error = 0;
  while (SYS(__NR_read, self.sigchld, drained, sizeof drained) > 0) continue;
  while ((pid = wait_for(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0)
    if (pid == self.main_pid && error >= 0) error = send_packet(EVENT_CHILD, (u32)status, pid, 0, 0, -1);
  return error;
}

// Reads a list of children, `/proc/PID/task/TID/children`. Each pid in it ends with a space.
static const u8 *read_list(i32 list, u8 *text) {
  i64 n = SYS(__NR_pread64, list, text, PAYLOAD_MAX / 2 - 1, 0);
  text[n > 0 ? n : 0] = 0;
  return text;
}

// The next pid in a list; 0 at its end, and for one that was cut off.
static i32 next_pid(const u8 **at) {
  i32 pid = 0;
  for (; **at >= '0' && **at <= '9'; ++*at) pid = pid * 10 + (**at - '0');
  return *(*at)++ == ' ' ? pid : 0;
}

static int is_listed(i32 list, i32 pid) {
  const u8 *at = read_list(list, packet.payload + PAYLOAD_MAX / 2);
  i32 found;
  while ((found = next_pid(&at)) && found != pid) continue;
  return found != 0;
}

// Waits until a process has ended, for some milliseconds; the result is 0 if it has not.
static i64 wait_end(i32 pidfd, i64 milliseconds) {
  struct pollfd p = {pidfd, POLLIN, 0};
  struct __kernel_timespec time = {0, milliseconds * 1000000};
  return SYS(__NR_ppoll, &p, 1, &time, 0, 0);
}

// Kills the processes in a list until all of them have ended. The list is a subreaper's, so the orphans of one
// generation come into it as the one before ends. Its owner may be stopped, or reap children meanwhile: a pid still
// belongs to a child if it is in the list after its pidfd was opened. One that may not be killed is left alone, and so
// is one that does not end, as in a file system that hangs: it ends as soon as it can. Each gets `grace` milliseconds
// to end by itself. One that has ended may have done so after the list was read, and its children came into the list
// behind that: so the list is read again until it has no others of those, of which the sum of pids tells.
static void kill_listed(i32 list, i64 grace, int *late) {
  for (u64 ended = 0, before;;) {
    const u8 *at = read_list(list, packet.payload);
    i32 pid, status, last = -1;
    before = ended;
    ended = 0;
    while ((pid = next_pid(&at))) {
      i32 pidfd = (i32)SYS(__NR_pidfd_open, pid, 0);
      if (pidfd >= 0 && !wait_end(pidfd, grace) && is_listed(list, pid) &&
          !SYS(__NR_pidfd_send_signal, pidfd, SIGKILL, 0, 0)) {
        close_fd(&last);
        last = pidfd;
      } else {
        close_fd(&pidfd);
        ended += (u64)pid;
      }
    }
    while (wait_for(-1, &status, WNOHANG) > 0) continue;
    if (last < 0 && ended == before) return;
    // Where nothing may be killed, others may go on ending and beginning for ever.
    if (last < 0 || !wait_end(last, 10)) ++*late;
    if (*late > LATE_MAX) return;
    close_fd(&last);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The agent: the terminal, which it is given only while the command is in the foreground.

// The foreground process group; 0 if that is the shell that has started penne: it has taken over then, and its settings
// must not be touched.
static i32 foreground(void) {
  i32 group = 0;
  if (self.tty < 0 || SYS(__NR_ioctl, self.tty, TIOCGPGRP, &group) || group <= 0) return 0;
  return group == self.shell_group && group != self.tty_group ? 0 : group;
}

// Restores the settings if they have changed. They are read before the foreground: if that is still the command's
// afterwards, no shell has changed them. If the shell is there already, settings that no line editor makes (a line
// editor has ICANON off, and ISIG and OPOST on) are not the shell's all the same: not every shell restores them.
static void restore_settings(void) {
  struct termios now;
  if (self.tty < 0 || SYS(__NR_ioctl, self.tty, TCGETS, &now) || same(&now, &self.termios, sizeof now)) return;
  int editing = !(now.c_lflag & ICANON) && now.c_lflag & ISIG && now.c_oflag & OPOST;
  if (foreground() || !editing) SYS(__NR_ioctl, self.tty, TCSETS, &self.termios);
}

// Ends the agent. The settings are restored at once, since a shell that waits for penne learns of its end right after
// this agent does; and again, with the foreground, when nobody is left who could change them, unless the foreground is
// another living group, neither penne's nor one that was ended just now.
_Noreturn static void finish(void) {
  int late = 0;
  restore_settings();
  for (int i = 0; i < LISTS_MAX; i++) {
    // After the lists of others comes the own one: agents that end now too, and wait for their children before.
    i64 grace = i > 0 && (i + 1 == LISTS_MAX || self.lists[i + 1] < 0) ? 10 : 0;
    if (self.lists[i] >= 0) kill_listed(self.lists[i], grace, &late);
  }
  i32 group = foreground();
  if (group && (group == self.tty_group || SYS(__NR_kill, -group, 0) == -ESRCH)) {
    restore_settings();
    if (group != self.tty_group) SYS(__NR_ioctl, self.tty, TIOCSPGRP, &self.tty_group);
  }
  leave(0);
}

// ---------------------------------------------------------------------------------------------------------------------
// The agent: what it gives up once nothing but waiting is left to do.

// Keeps some capabilities, empties the bounding set, and installs a filter of system calls, an array of `struct
// sock_filter`. The order matters: a filter takes no_new_privs, and forbids all the rest.
static i64 confine(u64 keep, void *filter, i64 length) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2];
  struct sock_fprog program = {(unsigned short)(length / (i64)sizeof(struct sock_filter)), filter};
  for (int cap = 0; cap < 64; cap++) // refused from the first one on without CAP_SETPCAP
    if (SYS(__NR_prctl, PR_CAPBSET_DROP, cap) < 0) break;
  i64 error = SYS(__NR_capget, &header, sets);
  for (int i = 0; i < 2; i++) {
    sets[i].effective = sets[i].permitted &= (u32)(keep >> 32 * i);
    sets[i].inheritable = 0;
  }
  if (!error) error = SYS(__NR_capset, &header, sets);
  if (!error) error = SYS(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (!error) error = SYS(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
  return error;
}

// ---------------------------------------------------------------------------------------------------------------------
// The holder: what is left of an agent that only keeps its namespaces alive.

static const char HOLDER[] = "penne-holder";

// It depends on no socket and has no descriptors; the kernel reaps for it, as it ignores SIGCHLD. Two signals end it,
// to PID 1 of a pid namespace only from outside: TERM at once; USR1 as soon as no other process is left in the
// namespace. If its standard input begins as a filter does, it confines itself: what it does after that is the loop.
_Noreturn static void hold(int dumpable) {
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  struct __kernel_timespec second = {1, 0};
  u64 wanted = 1ull << (SIGTERM - 1) | 1ull << (SIGUSR1 - 1);
  siginfo_t info;
  i32 status, leaving = 0, init = SYS(__NR_getpid) == 1;
  block_signals(0);
  i64 length = SYS(__NR_read, 0, packet.payload, PAYLOAD_MAX);
  SYS(__NR_close_range, 0, ~0u, 0);
  set_action(SIGCHLD, &ignore);
  while (wait_for(-1, &status, WNOHANG) > 0) continue;
  SYS(__NR_prctl, PR_SET_NAME, HOLDER);
  SYS(__NR_prctl, PR_SET_DUMPABLE, dumpable);
  // One that its owner's processes may trace keeps its capabilities, which such a process would have to have as well.
  if (length > 0 && packet.payload[0] == (BPF_LD | BPF_W | BPF_ABS))
    confine(dumpable ? ~0ull : 0, packet.payload, length);
  for (;;) {
    i64 signal = SYS(__NR_rt_sigtimedwait, &wanted, &info, leaving ? &second : 0, sizeof wanted);
    // A sender outside has no pid here. The kernel vouches for that with kill(2) alone, whose code is SI_USER; with the
    // codes of rt_sigqueueinfo(2) a sender inside may have written any pid.
    if (signal > 0 && init && (info.si_code != SI_USER || info.si_pid)) continue;
    if (signal == SIGTERM || (signal == SIGUSR1 && !init)) leave(0);
    if (signal == SIGUSR1) leaving = 1;
    if (leaving && SYS(__NR_kill, -1, 0) == -ESRCH) leave(0);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The agent: requests.

// Receives a request into `packet`, and its descriptors into `fds`; the result is the payload's length.
static i64 receive(i32 *fds, int *count) {
  struct iovec part = {&packet, sizeof packet};
  struct rights rights;
  struct message m = {0, 0, &part, 1, &rights, sizeof rights, 0};
  i64 n = RETRY(__NR_recvmsg, self.socket, &m, MSG_CMSG_CLOEXEC);
  if (n <= 0) finish();
  *count = 0;
  if (m.control_length >= offsetof(struct rights, fd) && rights.type == SCM_RIGHTS) {
    *count = (int)((rights.length - offsetof(struct rights, fd)) / sizeof(i32));
    for (int i = 0; i < *count; i++) fds[i] = rights.fd[i];
  }
  if (m.flags & MSG_CTRUNC) return -EMFILE;
  if (n < (i64)sizeof packet.request || m.flags & MSG_TRUNC) return -EINVAL;
  return n - (i64)sizeof packet.request;
}

// Turns offsets into addresses and indices into descriptors; refuses what lies outside of the payload.
static i64 resolve(struct request *r, i64 length, const i32 *fds, int count) {
  if (r->reply_at > length || r->reply_length > length - r->reply_at) return -EINVAL;
  if (r->relocs_at > length || r->relocs > (u64)(length - r->relocs_at) / 4) return -EINVAL;
  for (u32 i = 0; i < r->relocs; i++) {
    u32 at;
    u64 target;
    memcpy(&at, packet.payload + r->relocs_at + 4 * i, 4);
    if (length < 8 || at > length - 8) return -EINVAL;
    memcpy(&target, packet.payload + at, 8);
    if (target != ~0ull && target > (u64)length) return -EINVAL;
    target = target == ~0ull ? 0 : (u64)(packet.payload + target);
    memcpy(packet.payload + at, &target, 8);
  }
  for (int i = 0; i < 6; i++) {
    if (r->pointers >> i & 1) {
      if (r->arg[i] < 0 || r->arg[i] > length) return -EINVAL;
      r->arg[i] += (i64)packet.payload;
    } else if (r->fds >> i & 1) {
      if (r->arg[i] < 0 || r->arg[i] >= count) return -EINVAL;
      r->arg[i] = fds[r->arg[i]];
    }
  }
  return 0;
}

// A plain fork with the given flags; the child serves the received socket and takes over nothing else from its parent.
static i64 clone_agent(u64 flags, i32 socket, i32 *pidfd) {
  i64 pid = SYS(__NR_clone, flags | SIGCHLD, 0, pidfd, 0, 0);
  if (pid < 0) *pidfd = -1; // the kernel leaves a number there if it refuses late
  if (pid == 0) {
    close_fd(&self.socket);
    close_fd(&self.sigchld);
    for (int i = 0; i < LISTS_MAX; i++) close_fd(&self.lists[i]);
    close_fd(&self.tty);
    self.main_pid = 0;
    self.socket = socket;
  }
  return pid;
}

static i64 wait_for_children(const struct request *r) {
  u64 mask = 1ull << (SIGCHLD - 1);
  self.main_pid = (i32)r->arg[0];
  for (int i = 0; i < LISTS_MAX; i++) self.lists[i] = (i32)r->arg[1 + i];
  if (self.sigchld < 0) self.sigchld = (i32)SYS(__NR_signalfd4, -1, &mask, sizeof mask, SFD_CLOEXEC | SFD_NONBLOCK);
  return self.sigchld < 0 ? self.sigchld : 0;
}

static i64 take_terminal(const struct request *r, i64 length, const i32 *fds, int count) {
  close_fd(&self.tty);
  if (count == 0) return 0;
  if (count != 1 || length != sizeof self.termios) return -EINVAL;
  self.tty = fds[0];
  self.tty_group = (i32)r->arg[0];
  self.shell_group = (i32)r->arg[1];
  memcpy(&self.termios, packet.payload, sizeof self.termios);
  return 0;
}

static i64 execute(const struct request *r, const i32 *fds, int count) {
  if (count > 3) return -EINVAL;
  for (int i = 0; i < count; i++) SYS(__NR_dup3, fds[i], i, 0);
  set_mask((u64)r->arg[3]);
  i64 result = SYS(__NR_execve, r->arg[0], r->arg[1], r->arg[2]);
  block_signals(0);
  return result;
}

static i64 execute_image(i32 image, i64 argv) {
  u64 environment = 0;
  return SYS(__NR_execveat, image, "", argv, &environment, AT_EMPTY_PATH);
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
        result = count == 1 ? clone_agent((u64)r->arg[0], fds[0], &reply_fd) : -EINVAL;
        if (result == 0) return; // the child: nothing has been requested on its socket yet
        break;
      case OP_REAP:
        result = wait_for_children(r);
        break;
      case OP_TTY:
        result = take_terminal(r, length, fds, count);
        break;
      case OP_EXEC:
        result = execute(r, fds, count);
        break;
      case OP_HOLD:
        // The standard streams are placeholders, see hide_stdio().
        if (count > (r->arg[1] ? 0 : 1)) SYS(__NR_dup3, fds[count - 1], 0, 0);
        if (r->arg[1]) hold(1);
        result = count > 0 ? execute_image(fds[0], r->arg[0]) : -EINVAL;
        break;
      case OP_CONFINE:
        result = confine((u64)r->arg[0], packet.payload, length);
        break;
      default:
        result = -EINVAL;
    }
  }
  if (!(flags & KEEP_FDS))
    for (int i = 0; i < count; i++) SYS(__NR_close, fds[i]);
  u8 *reply = packet.payload + (valid ? r->reply_at : 0);
  i64 sent = send_packet(ANSWER, 0, result, reply, valid ? r->reply_length : 0, reply_fd);
  if (sent < 0) sent = send_packet(ANSWER, 0, sent, 0, 0, -1); // as with too many fds on their way
  if (reply_fd >= 0) SYS(__NR_close, reply_fd);
  // A child may have ended before there was a signalfd to say so.
  if (sent >= 0 && valid && r->operation == OP_REAP && result == 0) sent = reap();
  if (sent < 0) finish(); // whoever waits for this must not wait for ever
}

_Noreturn static void agent(i32 socket) {
  struct sigaction action = {0}; // with SIGCHLD ignored, as the caller may have it, the kernel would reap the children
  set_action(SIGCHLD, &action);
  self.socket = socket;
  self.sigchld = self.tty = -1;
  for (int i = 0; i < LISTS_MAX; i++) self.lists[i] = -1;
  for (;;) {
    if (self.sigchld >= 0) {
      struct pollfd p[2] = {{self.socket, POLLIN, 0}, {self.sigchld, POLLIN, 0}};
      if (RETRY(__NR_ppoll, p, 2, 0, 0, 0) < 0) finish(); // as where a filter hides the call
      if (p[1].revents && reap() < 0) finish();
      if (!p[0].revents) continue;
    }
    serve_one();
  }
}

static int is_holder(const char *name) {
  for (size_t i = 0; i < sizeof HOLDER; i++)
    if (name[i] != HOLDER[i]) return 0;
  return 1;
}

// Entry of the executed agent: argv[1] is the number of its socket, in decimal. With two arguments, which are there to
// be read by people, it is a holder, but only under that name: a script whose interpreter is /proc/self/exe must not be
// one.
__attribute__((used)) _Noreturn static void agent_main(const i64 *stack) {
  i32 socket = 0;
  if (stack[0] == 3 && is_holder((const char *)stack[1])) hold(0);
  if (stack[0] != 2) leave(127);
  for (const char *c = (const char *)stack[2]; *c >= '0' && *c <= '9'; c++) socket = socket * 10 + (*c - '0');
  SYS(__NR_fcntl, socket, F_SETFD, FD_CLOEXEC); // a program that takes the agent's place must not have it
  agent(socket);
}

// ---------------------------------------------------------------------------------------------------------------------
// The library: starting agents.

enum spawn_how { SPAWN_EXEC, SPAWN_FORK, SPAWN_INHERIT }; // INHERIT: like EXEC, with every inheritable fd

struct spawn {
  u64 flags;      // namespaces (and CLONE_PARENT) of the agent
  u64 stack;      // address of a stack for the child ...
  u64 stack_size; // ... and its size
  u64 argv;       // {name, decimal number of socket, NULL}
  i32 socket;     // the agent's end; the child has it under the same number
  i32 image;      // memfd of this ELF
  i32 how;        // enum spawn_how
  i32 pidfd;      // out: a pidfd of the agent
  i64 error;      // out: 0, or the -errno of execveat (then the child has exited and must be reaped)
  i64 pid;        // out, SPAWN_FORK
};

// Closes what the agent must not have: everything above stderr but the two fds given.
static void close_others(i32 a, i32 b) {
  i32 low = a < b ? a : b, high = a < b ? b : a;
  if (low > 3) SYS(__NR_close_range, 3, low - 1, 0);
  if (high - low > 1) SYS(__NR_close_range, low + 1, high - 1, 0);
  SYS(__NR_close_range, high + 1, ~0u, 0);
}

// An agent does not have the caller's stdin, stdout and stderr: who waits for their end must not wait for one that
// hangs. The numbers stay taken, so that no other fd gets them.
static void hide_stdio(i32 image) {
  for (i32 fd = 0; fd < 3; fd++) SYS(__NR_dup3, image, fd, 0);
}

// A process in a new user namespace has all capabilities there, but its ids are not mapped yet, so it is not root and
// an exec would take them all away. Only ambient ones survive.
static void keep_capabilities(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2];
  if (SYS(__NR_capget, &header, sets)) return;
  for (int i = 0; i < 2; i++) sets[i].inheritable = sets[i].permitted;
  if (SYS(__NR_capset, &header, sets)) return;
  for (int cap = 0; cap < 64; cap++)
    if (SYS(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap) == -EINVAL) break;
}

static void spawn_exec(void *argument) {
  struct spawn *s = argument;
  if (s->flags & CLONE_NEWUSER) keep_capabilities();
  if (s->how != SPAWN_INHERIT) {
    hide_stdio(s->image);
    close_others(s->socket, s->image);
  }
  SYS(__NR_fcntl, s->socket, F_SETFD, 0);
  s->error = execute_image(s->image, (i64)s->argv);
  leave(127);
}

extern u8 __ehdr_start[] __attribute__((visibility("hidden")));
extern u8 _end[] __attribute__((visibility("hidden")));
static u8 fork_stack[8192] __attribute__((aligned(16)));

// The agent without an exec: forget everything of the program it was forked from but this ELF.
static void forked_agent(void *argument) {
  i32 socket = ((i32 *)argument)[0], image = ((i32 *)argument)[1];
  u64 page = PAGE_MAX, start = (u64)__ehdr_start & ~(page - 1), end = ((u64)_end + page - 1) & ~(page - 1);
  for (int i = 1; i <= SIG_COUNT; i++) { // handlers point into what is about to be unmapped
    struct sigaction action;
    if (SYS(__NR_rt_sigaction, i, 0, &action, sizeof(u64))) continue;
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) continue;
    action = (struct sigaction){0};
    set_action(i, &action);
  }
  hide_stdio(image);
  close_others(socket, socket);
  SYS(__NR_munmap, 0, start);
  for (int bits = 57; bits >= 36; bits--) // the size of the address space is the kernel's choice
    if ((1ull << bits) - page > end && SYS(__NR_munmap, end, (1ull << bits) - page - end) == 0) break;
  agent(socket);
}

// Runs as a vfork child: a child that shares the memory has no rseq area registered, and passes that on. Without this
// step the forked agent would be killed when the kernel next writes to the area, unmapped by then.
static void spawn_fork(void *argument) {
  struct spawn *s = argument;
  static i32 fds[2]; // not *s: memory of the JavaScript heap does not survive a fork
  fds[0] = s->socket, fds[1] = s->image;
  u64 flags = (s->flags & ~(u64)CLONE_VM) | CLONE_PARENT | CLONE_PIDFD | SIGCHLD;
  s->pid = clone_call(flags, fork_stack + sizeof fork_stack, &s->pidfd, forked_agent, fds);
  leave(0);
}

// Starts an agent; the result is its pid. All signals are blocked around the clone, and stay blocked in the agent.
static i64 spawn(struct spawn *s) {
  u64 mask, vfork = CLONE_VM | CLONE_VFORK | SIGCHLD;
  void *top = (void *)(s->stack + s->stack_size);
  i64 pid;
  s->error = 0;
  s->pidfd = -1;
  block_signals(&mask);
  if (s->how != SPAWN_FORK) {
    pid = clone_call(s->flags | vfork | CLONE_PIDFD, top, &s->pidfd, spawn_exec, s);
  } else {
    pid = clone_call(vfork | CLONE_FILES, top, 0, spawn_fork, s); // the pidfd is to be in this process
    i32 status;
    if (pid > 0) wait_for(pid, &status, 0), pid = s->pid;
  }
  set_mask(mask);
  return pid;
}

// ---------------------------------------------------------------------------------------------------------------------
// The library: signals.

static i32 signal_pipe = -1;

static void on_signal(i32 signo, struct siginfo *info, void *context) {
  i32 record[3] = {signo, info->si_code, info->si_pid};
  (void)context;
  SYS(__NR_write, signal_pipe, record, sizeof record);
}

// From now on `signo` writes {signo, si_code, si_pid} to `pipe` (if that is -1, it has its default action). With
// `unless_ignored` a signal that is ignored stays so, and the result is 1.
static i64 set_signal(i32 signo, i32 pipe, i32 unless_ignored) {
  struct sigaction action = {0};
  if (unless_ignored) {
    i64 error = SYS(__NR_rt_sigaction, signo, 0, &action, sizeof(u64));
    if (error) return error;
    if (action.sa_handler == SIG_IGN) return 1;
    action = (struct sigaction){0};
  }
  if (pipe >= 0) {
    signal_pipe = pipe;
    action.sa_handler = (__sighandler_t)(void (*)(void))on_signal;
    action.sa_flags = ACTION_FLAGS;
    action.sa_restorer = signal_return;
  }
  return set_action(signo, &action);
}

// ---------------------------------------------------------------------------------------------------------------------
// The library: system calls that this process has forbidden itself.

enum { EXIT_FORBIDDEN = 159 }; // as a shell reports the death by SIGSYS

static i32 forbidden_log = -1;

static u64 append(char *to, u64 at, const char *text) {
  while (*text) to[at++] = *text++;
  return at;
}

// SIGSYS: says which call it was, and ends the process, whatever it was doing.
_Noreturn static void on_forbidden(i32 signo, struct siginfo *info, void *context) {
  char text[128], digits[12];
  u32 nr = (u32)info->si_syscall;
  int count = 0;
  (void)signo, (void)context;
  do digits[count++] = (char)('0' + nr % 10);
  while (nr /= 10);
  u64 n = append(text, 0, "penne: cannot make system call ");
  while (count) text[n++] = digits[--count];
  n = append(text, n, ": its own filter forbids it\n");
  SYS(__NR_write, forbidden_log, text, n);
  leave(EXIT_FORBIDDEN);
}

// From now on a call that a filter traps is reported to `log` and ends the process.
static i64 report_forbidden(i32 log) {
  struct sigaction action = {0};
  forbidden_log = log;
  action.sa_handler = (__sighandler_t)(void (*)(void))on_forbidden;
  action.sa_flags = ACTION_FLAGS;
  action.sa_restorer = signal_return;
  return set_action(SIGSYS, &action);
}

// ---------------------------------------------------------------------------------------------------------------------
// The library: BPF ring buffers.

// Takes records out of a ring buffer, without their headers and one after the other, as many as are complete and fit.
// Here rather than in JavaScript because the two sides agree by acquire and release: a record is there once its length
// is, and its place may be written again once the consumer's position is past it. The result is how many bytes were
// taken.
static i64 ring_take(u64 *consumer, const u64 *producer, const u8 *data, u64 mask, u64 *out, u64 size) {
  u64 at = __atomic_load_n(consumer, __ATOMIC_RELAXED);
  u64 end = __atomic_load_n(producer, __ATOMIC_ACQUIRE);
  u64 words = size / 8, taken = 0;
  while (at < end) {
    const u64 *record =
        (const void *)(data + (at & mask)); // the data is mapped twice in a row, so a record never wraps
    u32 length = __atomic_load_n((const u32 *)record, __ATOMIC_ACQUIRE);
    if (length & BPF_RINGBUF_BUSY_BIT) break;
    u64 n = ((length & ~BPF_RINGBUF_DISCARD_BIT) + 7) / 8;
    if (!(length & BPF_RINGBUF_DISCARD_BIT)) {
      if (n > words - taken) break;
      for (u64 i = 0; i < n; i++) out[taken++] = record[1 + i];
    }
    at += 8 * (1 + n);
  }
  __atomic_store_n(consumer, at, __ATOMIC_RELEASE);
  return (i64)(8 * taken);
}

// ---------------------------------------------------------------------------------------------------------------------
// The library: its two functions.

enum shim_function { SHIM_SPAWN = -1, SHIM_SIGNAL = -2, SHIM_FORBIDDEN = -3 };

// A syscall, or one of the functions above under a negative number: binding a symbol costs JavaScript more time at
// start-up than this comparison ever will.
__attribute__((visibility("default"))) i64 shim(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
  if (nr >= 0) return sys(nr, a, b, c, d, e, f);
  if (nr == SHIM_SPAWN) return spawn((struct spawn *)a);
  if (nr == SHIM_SIGNAL) return set_signal((i32)a, (i32)b, (i32)c);
  if (nr == SHIM_FORBIDDEN) return report_forbidden((i32)a);
  return -EINVAL;
}

// The same for the hot paths: every number of JavaScript is a double, and passing doubles is the only way to hand over
// an address or take a result without making a BigInt. An address has at most 52 bits, which a double holds exactly. A
// negative number stands for ring_take().
__attribute__((visibility("default"))) double quick(double nr, double a, double b, double c, double d, double e,
                                                    double f) {
  if (nr >= 0) return (double)sys((i64)nr, (i64)a, (i64)b, (i64)c, (i64)d, (i64)e, (i64)f);
  return (double)ring_take((u64 *)(i64)a, (u64 *)(i64)b, (u8 *)(i64)c, (u64)d, (u64 *)(i64)e, (u64)f);
}
