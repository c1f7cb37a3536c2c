// Runs a program under a seccomp(2) filter, as a container engine or systemd would: a host for the tests.
//
//   filter RULE... -- PROGRAM [ARGUMENT...]
//
// RULE is CALL=ACTION, CALL[ARGUMENT&MASK]=ACTION (some bit of the mask is set in the argument), or
// CALL[ARGUMENT=VALUE]=ACTION. ACTION is an error number, "kill" or "allow". The first rule that fits decides; a call
// that none fits is allowed. no_new_privs is set only where the kernel demands it, so that set-user-id programs work.

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#else
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

// Headers of Debian 12 do not have these; all architectures have the same numbers.
#ifndef SYS_statmount
#define SYS_statmount 457
#define SYS_listmount 458
#endif

#define CALL(name) \
  { #name, SYS_##name }

static const struct {
  const char *name;
  int number;
} calls[] = {
    CALL(bind),        CALL(bpf),           CALL(capget),
    CALL(capset),      CALL(chroot),        CALL(clone),
    CALL(clone3),      CALL(execveat),      CALL(fsopen),
    CALL(ioctl),       CALL(memfd_create),  CALL(mmap),
    CALL(mount),       CALL(mount_setattr), CALL(listmount),
    CALL(move_mount),  CALL(open_tree),     CALL(open_by_handle_at),
    CALL(openat),      CALL(openat2),       CALL(pidfd_open),
    CALL(pivot_root),  CALL(ppoll),         CALL(prctl),
    CALL(prlimit64),   CALL(renameat2),     CALL(setgroups),
    CALL(sethostname), CALL(setns),         CALL(setresuid),
    CALL(setresgid),   CALL(signalfd4),     CALL(socket),
    CALL(socketpair),  CALL(statmount),     CALL(statx),
    CALL(umount2),     CALL(unshare),       CALL(pidfd_send_signal),
    CALL(seccomp),
};

static struct sock_filter program[4096];
static size_t length;

static void emit(struct sock_filter instruction) {
  program[length++] = instruction;
}

static void load(size_t offset) {
  emit((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset));
}

static void fail(const char *text) {
  fprintf(stderr, "filter: %s\n", text);
  exit(2);
}

static unsigned number_of(const char *name) {
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    if (strcmp(calls[i].name, name) == 0) return (unsigned)calls[i].number;
  fail(name);
  return 0;
}

static unsigned action_of(const char *text) {
  if (strcmp(text, "kill") == 0) return SECCOMP_RET_KILL_PROCESS;
  if (strcmp(text, "allow") == 0) return SECCOMP_RET_ALLOW;
  return SECCOMP_RET_ERRNO | (unsigned)strtoul(text, NULL, 0);
}

// One rule: call, then perhaps an argument (little-endian: its low half comes first), then the action.
static void add(char *rule) {
  char *equals = strrchr(rule, '=');
  if (!equals) fail(rule);
  unsigned action = action_of(equals + 1);
  *equals = 0;
  char *bracket = strchr(rule, '[');
  if (bracket) *bracket = 0;
  load(offsetof(struct seccomp_data, nr));
  emit((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number_of(rule), 0, bracket ? 3 : 1));
  if (bracket) {
    char *rest;
    unsigned long argument = strtoul(bracket + 1, &rest, 0);
    unsigned short test = *rest == '&' ? BPF_JSET : BPF_JEQ;
    load(offsetof(struct seccomp_data, args) + 8 * argument);
    emit((struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, (unsigned)strtoul(rest + 1, NULL, 0), 0, 1));
  }
  emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

int main(int argc, char **argv) {
  load(offsetof(struct seccomp_data, arch));
  emit((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
  emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  int at = 1;
  for (; at < argc && strcmp(argv[at], "--") != 0; at++) add(argv[at]);
  if (at + 1 >= argc) fail("no program");
  emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  struct sock_fprog filter = {(unsigned short)length, program};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0) {
    if (errno != EACCES || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0) fail("seccomp");
  }
  execvp(argv[at + 1], argv + at + 1);
  fail(strerror(errno));
}
