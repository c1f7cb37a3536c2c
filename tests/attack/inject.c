// Makes a traced process push a line into its terminal, ioctl_tty(2), or pushes it itself if PID is 0: inject PID LINE.
// Prints how many characters the terminal took. With inject PID --key NAME the process searches its session keyring.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <elf.h>

#if defined(__x86_64__)
enum { INSTRUCTIONS = 0xcc050f }; // syscall; int3
#define PC(r) ((r).rip)
#define SP(r) ((r).rsp)
#define RESULT(r) ((r).rax)
static void set_call(struct user_regs_struct *r, long nr, long a, long b, long c, long d) {
  r->orig_rax = -1ul, r->rax = nr, r->rdi = a, r->rsi = b, r->rdx = c, r->r10 = d, r->r8 = 0;
}
#elif defined(__aarch64__)
#define INSTRUCTIONS 0xd4200000d4000001 // svc #0; brk #0
#define PC(r) ((r).pc)
#define SP(r) ((r).sp)
#define RESULT(r) ((r).regs[0])
static void set_call(struct user_regs_struct *r, long nr, long a, long b, long c, long d) {
  r->regs[8] = nr, r->regs[0] = a, r->regs[1] = b, r->regs[2] = c, r->regs[3] = d, r->regs[4] = 0;
}
#endif

static void registers(enum __ptrace_request request, pid_t pid, struct user_regs_struct *r) {
  struct iovec part = {r, sizeof *r};
  if (ptrace(request, pid, NT_PRSTATUS, &part)) perror("registers"), exit(1);
}

// Makes the traced process call the kernel, and returns the result.
static long injected(pid_t pid, const struct user_regs_struct *saved, long nr, long a, long b, long c, long d) {
  struct user_regs_struct r = *saved;
  set_call(&r, nr, a, b, c, d);
  registers(PTRACE_SETREGSET, pid, &r);
  ptrace(PTRACE_CONT, pid, 0, 0);
  waitpid(pid, 0, 0);
  registers(PTRACE_GETREGSET, pid, &r);
  return (long)RESULT(r);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  pid_t pid = atoi(argv[1]);
  struct user_regs_struct saved;
  const char *line = argv[2], *key = argc == 4 && !strcmp(argv[2], "--key") ? argv[3] : 0;
  int taken = 0, error = 0;
  if (pid == 0) {
    for (int i = 0; line[i]; i++) taken += ioctl(0, TIOCSTI, &line[i]) == 0;
    return printf("%d of %zu\n", taken, strlen(line)), 0;
  }
  if (ptrace(PTRACE_ATTACH, pid, 0, 0)) return perror("attach"), 1;
  waitpid(pid, 0, 0);
  registers(PTRACE_GETREGSET, pid, &saved);
  long code = ptrace(PTRACE_PEEKTEXT, pid, PC(saved), 0);
  long at = (SP(saved) - 512) & ~15;
  ptrace(PTRACE_POKETEXT, pid, PC(saved), INSTRUCTIONS);
  if (key) {
    enum { KEYCTL_SEARCH = 10, SESSION = -3 };
    char words[64] = "user";
    strncpy(words + 8, key, sizeof words - 9);
    for (size_t i = 0; i < sizeof words; i += sizeof(long)) {
      long word;
      memcpy(&word, words + i, sizeof word);
      ptrace(PTRACE_POKEDATA, pid, at + i, word);
    }
    long found = injected(pid, &saved, SYS_keyctl, KEYCTL_SEARCH, SESSION, at, at + 8);
    printf("key: %s\n", found < 0 ? strerror(-found) : "found");
  } else {
    for (int i = 0; line[i]; i++) {
      ptrace(PTRACE_POKEDATA, pid, at, line[i]);
      long result = injected(pid, &saved, SYS_ioctl, 0, TIOCSTI, at, 0);
      if (result == 0) taken++;
      else error = -(int)result;
    }
    printf("%d of %zu %s\n", taken, strlen(line), error ? strerror(error) : "");
  }
  ptrace(PTRACE_POKETEXT, pid, PC(saved), code);
  registers(PTRACE_SETREGSET, pid, &saved);
  ptrace(PTRACE_DETACH, pid, 0, 0);
}
