// rr: how long a TCP exchange of one byte takes. `rr server PORT`; `rr rr|crr ADDRESS PORT SECONDS` prints
// microseconds, for crr with a connection for each.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void no_delay(int s) {
  int one = 1;
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int serve(int port) {
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 512)) return 1;
  int epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    struct epoll_event events[64];
    int n = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < n; i++) {
      int s = events[i].data.fd;
      if (s == listener) {
        int accepted = accept(listener, NULL, NULL);
        if (accepted < 0) continue;
        no_delay(accepted);
        event.data.fd = accepted;
        epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event);
        continue;
      }
      char bytes[64];
      ssize_t length = read(s, bytes, sizeof bytes);
      if (length <= 0 || write(s, bytes, (size_t)length) < 0) close(s);
    }
  }
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "server")) return serve(atoi(argv[2]));
  if (argc != 5) return 2;
  int each = !strcmp(argv[1], "crr"), s = -1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[3]))};
  inet_pton(AF_INET, argv[2], &address.sin_addr);
  double start = now(), end = start + atof(argv[4]);
  long count = 0;
  while (now() < end) {
    if (s < 0) {
      s = socket(AF_INET, SOCK_STREAM, 0);
      no_delay(s);
      if (connect(s, (struct sockaddr *)&address, sizeof address)) return 1;
    }
    char byte = 'x';
    if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1) return 1;
    count++;
    if (each) {
      close(s);
      s = -1;
    }
  }
  printf("%.3f\n", (now() - start) / (double)count * 1e6);
  return 0;
}
