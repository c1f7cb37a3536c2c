// SPDX-License-Identifier: MIT
// timer.c: starts a program and takes the time to its first instruction, its first output and its end.
//
//   timer [-o] SECONDS PROGRAM [ARGUMENT...]
//
// With -o, the first output of a PROGRAM that would stay makes the timer end it (SIGTERM). Prints "FIRST OUTPUT END
// STATUS": nanoseconds from right before the execve of PROGRAM, -1 for a missing event, and its exit code (128+N for
// signal N). FIRST is what PROGRAM itself read from the clock, if its first output is a
// struct timespec (first.c). Exits with 1 and a message if PROGRAM could not be executed or had to be killed.
//
// PROGRAM gets its own session, and nothing of it is left afterwards, daemons included: this process is a subreaper and
// kills every orphan. After SECONDS, or on SIGTERM, it kills PROGRAM and says so. The caller can rely on the end of
// both.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// The clock must be one that is the same in every namespace, time namespaces without offsets being so.
static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void require(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "timer: %s: %s\n", what, strerror(errno));
  exit(1);
}

// Ends every descendant: orphans arrive here one generation after the other, so the list is read until it is empty.
static void kill_descendants(void) {
  char path[64], list[4096];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
  for (;;) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), killed = 0;
    ssize_t n = fd < 0 ? 0 : read(fd, list, sizeof list - 1);
    if (fd >= 0) close(fd);
    list[n > 0 ? n : 0] = 0;
    for (char *at = list, *end; *at; at = end) {
      long pid = strtol(at, &end, 10);
      if (end == at) break;
      if (kill((pid_t)pid, SIGKILL) == 0) killed = 1;
    }
    if (!killed || waitpid(-1, NULL, 0) < 0) return;
  }
}

int main(int argc, char **argv) {
  // Shared with the child of vfork, which runs on this very stack.
  static volatile long long start;
  static volatile int error;
  static char **words;
  int out[2];
  sigset_t ends, before;
  const int ask = argc > 1 && strcmp(argv[1], "-o") == 0;
  words = argv + ask; // "timer" or "-o"; SECONDS; PROGRAM
  if (argc - ask < 3 || atoi(words[1]) <= 0) {
    fputs("usage: timer [-o] SECONDS PROGRAM [ARGUMENT...]\n", stderr);
    return 2;
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGHUP);
  sigprocmask(SIG_BLOCK, &ends, &before);
  int asked = signalfd(-1, &ends, SFD_CLOEXEC);
  require(asked >= 0 && pipe2(out, O_CLOEXEC) == 0, "prepare");

  pid_t pid = vfork();
  require(pid >= 0, "vfork");
  if (pid == 0) {
    setsid();
    dup2(out[1], 1);
    sigprocmask(SIG_SETMASK, &before, NULL);
    start = now();
    execvp(words[2], words + 2);
    error = errno;
    _exit(127);
  }
  close(out[1]);
  if (error) {
    waitpid(pid, NULL, 0);
    errno = error;
    require(0, words[2]);
  }

  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  require(pidfd >= 0, "pidfd_open");
  struct pollfd wait[] = {{pidfd, POLLIN, 0}, {asked, POLLIN, 0}, {out[0], POLLIN, 0}};
  long long first = -1, output = -1, end = 0, deadline = start + atoi(words[1]) * 1000000000LL;
  do {
    long long left = deadline - now();
    int ready = left > 0 ? poll(wait, 3, (int)(left / 1000000) + 1) : 0;
    long long at = now();
    if (ready < 0) continue;
    if (ready == 0 || wait[1].revents) {
      kill(-pid, SIGKILL);
      kill_descendants();
      fprintf(stderr, "timer: killed after %.1f s\n", (double)(at - start) / 1e9);
      return 1;
    }
    if (wait[2].revents) {
      char data[4096];
      ssize_t n = read(out[0], data, sizeof data);
      if (n > 0 && output < 0) {
        struct timespec t;
        output = at - start;
        memcpy(&t, data, sizeof t);
        if (n == sizeof t) first = t.tv_sec * 1000000000LL + t.tv_nsec - start;
        if (ask) kill(pid, SIGTERM);
      }
      if (n <= 0) wait[2].fd = -1;
    }
    if (wait[0].revents) end = at;
  } while (!end);

  int status;
  waitpid(pid, &status, 0);
  kill_descendants();
  printf("%lld %lld %lld %d\n", first, output, end - start,
         WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  return 0;
}
