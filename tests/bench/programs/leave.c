// SPDX-License-Identifier: MIT
// leave.c: runs commands and measures the time until another process ends.
//
//   leave SECONDS PID COMMAND [ARGUMENT...] [; COMMAND [ARGUMENT...]]...
//
// Prints "LEFT DONE STATUS...": nanoseconds from right before the execve of the first COMMAND until process PID has
// ended
// (-1: it is still there SECONDS later) and until the last COMMAND has, and each one's exit code (128+N for signal N).
// The commands run one after the other, even if one fails; PID is watched all the while. Exits with 1 and a message if
// a COMMAND could not be executed or PID does not exist.

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COMMANDS_MAX = 8 };

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void require(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "leave: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int open_pid(pid_t pid, const char *what) {
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  require(pidfd >= 0, what);
  return pidfd;
}

int main(int argc, char **argv) {
  // Shared with the children of vfork, which run on this very stack.
  static volatile long long start;
  static volatile int error;
  if (argc < 4 || atoi(argv[1]) <= 0 || atoi(argv[2]) <= 0) {
    fputs("usage: leave SECONDS PID COMMAND [ARGUMENT...] [; COMMAND [ARGUMENT...]]...\n", stderr);
    return 2;
  }
  struct pollfd wait[] = {{open_pid(atoi(argv[2]), argv[2]), POLLIN, 0}, {-1, POLLIN, 0}};
  require(poll(wait, 1, 0) == 0, "the process has ended already");

  long long left = -1, done = 0, deadline = now() + atoi(argv[1]) * 1000000000LL;
  int statuses[COMMANDS_MAX], count = 0;
  pid_t running = 0;
  char **next = argv + 3;
  while (running || *next || left < 0) {
    if (!running && *next) {
      require(count < COMMANDS_MAX, "there are too many commands");
      char **command = next;
      while (*next && strcmp(*next, ";")) next++;
      if (*next) *next++ = NULL;
      require(*command != NULL, "there is an empty command");
      running = vfork();
      require(running >= 0, "vfork");
      if (running == 0) {
        dup2(2, 1); // ours is for the result
        if (!start) start = now();
        execvp(*command, command);
        error = errno;
        _exit(127);
      }
      if (error) {
        waitpid(running, NULL, 0);
        errno = error;
        require(0, *command);
      }
      wait[1].fd = open_pid(running, *command);
    }
    long long rest = deadline - now();
    int ready = rest > 0 ? poll(wait, 2, (int)(rest / 1000000) + 1) : 0;
    long long at = now();
    if (ready < 0) continue;
    if (ready == 0) break;
    if (wait[0].revents) {
      left = at - start;
      wait[0].fd = -1;
    }
    if (wait[1].fd >= 0 && wait[1].revents) {
      int status;
      done = at - start;
      waitpid(running, &status, 0);
      statuses[count++] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      close(wait[1].fd);
      wait[1].fd = -1;
      running = 0;
    }
  }
  if (running) {
    kill(running, SIGKILL);
    waitpid(running, NULL, 0);
    fputs("leave: a command was still running\n", stderr);
    return 1;
  }
  printf("%lld %lld", left, done);
  for (int i = 0; i < count; i++) printf(" %d", statuses[i]);
  putchar('\n');
  return 0;
}
