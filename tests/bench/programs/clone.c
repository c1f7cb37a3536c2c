// SPDX-License-Identifier: MIT
// clone.c: the bare clone(2) that an agent's start is compared with.
//
// For each line on stdin, "FLAGS\n" in hexadecimal, clones a child that exits at once, and prints how many nanoseconds
// the call took, or "-ERRNO". The child has ended before the answer. With CLONE_VM among the flags (CLONE_VFORK must be
// set too) it borrows this process's memory until then, otherwise it gets a copy.

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char stack[65536] __attribute__((aligned(16)));

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int child(void *unused) {
  (void)unused;
  syscall(SYS_exit_group, 0);
  return 0;
}

int main(void) {
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    unsigned long flags = strtoul(line, NULL, 16);
    long long before = now();
    pid_t pid = clone(child, stack + sizeof stack, (int)(flags | SIGCHLD), NULL);
    long long after = now();
    long long answer = pid < 0 ? -errno : after - before;
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
    printf("%lld\n", answer);
    fflush(stdout);
  }
  return 0;
}
