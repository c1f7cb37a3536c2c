// SPDX-License-Identifier: MIT
// stamp.c: reads lines as they come and keeps some of them with their times of arrival.
//
//   stamp FIFO FILE
//
// The time is nanoseconds of CLOCK_MONOTONIC at the return of the read(2) that brought the end of the line. Kept are
// the first two lines, and those that begin with "ns: ", "lost: " and "resync: ".

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int begins(const char *line, const char *with) {
  return !strncmp(line, with, strlen(with));
}

int main(int argc, char **argv) {
  static char buffer[(1 << 20) + 1];
  size_t held = 0;
  long count = 0;
  const int in = argc == 3 ? open(argv[1], O_RDONLY) : -1;
  FILE *out = in >= 0 ? fopen(argv[2], "w") : NULL;
  if (!out) return 2;
  setvbuf(out, NULL, _IOFBF, 1 << 20);
  for (ssize_t n; (n = read(in, buffer + held, sizeof buffer - 1 - held)) > 0;) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const long long time = t.tv_sec * 1000000000LL + t.tv_nsec;
    char *at = buffer, *end = buffer + held + n;
    for (char *line; (line = memchr(at, '\n', (size_t)(end - at))); at = line + 1) {
      *line = 0;
      if (count++ < 2 || begins(at, "ns: ") || begins(at, "lost: ") || begins(at, "resync: ")) {
        fprintf(out, "%lld %s\n", time, at);
      }
      if (count <= 2) fflush(out);
    }
    held = (size_t)(end - at);
    if (held == sizeof buffer - 1) return 1;
    memmove(buffer, at, held);
  }
  return fclose(out) == 0 ? 0 : 1;
}
