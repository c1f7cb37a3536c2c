// SPDX-License-Identifier: MIT
// stamp.c: reads lines, and writes each with the time at which it has arrived.
//
//   PROGRAM | stamp FILE
//
// The time is nanoseconds of CLOCK_MONOTONIC at the return of the read(2) that brought the end of the line.

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
  static char buffer[1 << 20];
  size_t held = 0;
  FILE *out = argc == 2 ? fopen(argv[1], "w") : NULL;
  if (!out) return 2;
  setvbuf(out, NULL, _IOFBF, 1 << 20);
  for (ssize_t n; (n = read(0, buffer + held, sizeof buffer - held)) > 0;) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const long long time = t.tv_sec * 1000000000LL + t.tv_nsec;
    char *at = buffer, *end = buffer + held + n;
    for (char *line; (line = memchr(at, '\n', (size_t)(end - at))); at = line + 1) {
      fprintf(out, "%lld %.*s\n", time, (int)(line - at), at);
    }
    held = (size_t)(end - at);
    if (held == sizeof buffer) return 1;
    memmove(buffer, at, held);
  }
  return fclose(out) == 0 ? 0 : 1;
}
