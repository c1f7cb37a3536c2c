// SPDX-License-Identifier: MIT
// storm.c: makes namespaces, or processes, at a rate or as fast as one process can.
//
//   storm uts|net|fork COUNT RATE [FIFO]
//
// uts: unshare(CLONE_NEWUTS) in this process; net: fork, unshare(CLONE_NEWNET) and exit; fork: fork and exit. RATE is
// per second, 0 means as fast as possible. Finally prints "PID WALL CPU": nanoseconds from the first event to the last,
// and nanoseconds of processor time, which other load hardly changes. With a RATE it first prints lines "INDEX TIME
// PID" for up to 20000 events, evenly spread: the index, and CLOCK_MONOTONIC at the return of the call. With FIFO, each
// maker of a namespace writes a line about it there, as penne would: no watcher can be faster.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PRINTED = 20000, SLACK = 50000 };

struct made {
  long long time;
  int pid;
};

static long long now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long busy(void) {
  struct rusage children;
  getrusage(RUSAGE_CHILDREN, &children);
  return now(CLOCK_PROCESS_CPUTIME_ID) + (children.ru_utime.tv_sec + children.ru_stime.tv_sec) * 1000000000LL +
         (children.ru_utime.tv_usec + children.ru_stime.tv_usec) * 1000LL;
}

static void require(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void tell(int fd, int pid, const char *kind) {
  char line[64];
  const int length = snprintf(line, sizeof line, "ns: pid=%d type=%s\n", pid, kind);
  if (fd >= 0) require(write(fd, line, (size_t)length) == length, "write");
}

int main(int argc, char **argv) {
  if (argc != 4 && argc != 5) {
    fprintf(stderr, "usage: storm uts|net|fork COUNT RATE [FIFO]\n");
    return 2;
  }
  const int told = argc == 5 ? open(argv[4], O_WRONLY | O_CLOEXEC) : -1;
  require(argc == 4 || told >= 0, argv[argc - 1]);
  const char *kind = argv[1];
  const long count = atol(argv[2]), rate = atol(argv[3]);
  struct made *made = mmap(NULL, sizeof *made * (size_t)(count + 1), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  require(made != MAP_FAILED, "mmap");
  const int uts = !strcmp(kind, "uts"), net = !strcmp(kind, "net"), self = getpid();
  const long long start = now(CLOCK_MONOTONIC), start_busy = busy();
  for (long i = 0; i < count; i++) {
    if (rate) {
      // Sleeping takes longer than a few events at a high rate: those come together.
      const long long at = start + i * 1000000000LL / rate;
      if (at - now(CLOCK_MONOTONIC) > SLACK) {
        const struct timespec t = {at / 1000000000LL, at % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
      }
    }
    if (uts) {
      require(unshare(CLONE_NEWUTS) == 0, "unshare");
      if (rate) made[i] = (struct made){now(CLOCK_MONOTONIC), self};
      tell(told, self, kind);
      continue;
    }
    const pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
      if (net && unshare(CLONE_NEWNET) != 0) _exit(1);
      made[i] = (struct made){now(CLOCK_MONOTONIC), getpid()};
      tell(told, getpid(), kind);
      _exit(0);
    }
    int status;
    require(waitpid(child, &status, 0) == child && status == 0, "child");
  }
  const long long wall = now(CLOCK_MONOTONIC) - start, used = busy() - start_busy;
  const long step = count / PRINTED + 1;
  for (long i = 0; rate && i < count; i += step) printf("%ld %lld %d\n", i, made[i].time, made[i].pid);
  printf("%d %lld %lld\n", self, wall, used);
  return 0;
}
