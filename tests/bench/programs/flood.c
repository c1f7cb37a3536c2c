// flood: how many datagrams arrive of as many as can be sent. `flood server PORT`; `flood ADDRESS PORT SIZE SECONDS`
// prints the Gbit/s that have arrived.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, SLOT = 65536 };

static char data[BATCH][SLOT];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void prepare(size_t size) {
  for (int i = 0; i < BATCH; i++) {
    parts[i] = (struct iovec){data[i], size};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
  }
}

// A question is "q" and a number; the answer is that number and the bytes that have come since the last question.
static int serve(int port) {
  int s = socket(AF_INET, SOCK_DGRAM, 0), most = 4 << 20;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  setsockopt(s, SOL_SOCKET, SO_RCVBUF, &most, sizeof most);
  if (bind(s, (struct sockaddr *)&address, sizeof address)) return 1;
  unsigned long long bytes = 0;
  for (;;) {
    struct sockaddr_in from[BATCH];
    prepare(SLOT);
    for (int i = 0; i < BATCH; i++) {
      messages[i].msg_hdr.msg_name = &from[i];
      messages[i].msg_hdr.msg_namelen = sizeof from[i];
    }
    int n = recvmmsg(s, messages, BATCH, MSG_WAITFORONE, NULL);
    for (int i = 0; i < n; i++) {
      if (data[i][0] != 'q') {
        bytes += messages[i].msg_len;
        continue;
      }
      char answer[64];
      int length = snprintf(answer, sizeof answer, "%d %llu", atoi(data[i] + 1), bytes);
      sendto(s, answer, (size_t)length + 1, 0, (struct sockaddr *)&from[i], sizeof from[i]);
      bytes = 0;
    }
  }
}

static int connected(const struct sockaddr_in *address) {
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  struct timeval patience = {.tv_usec = 200000};
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return connect(s, (const struct sockaddr *)address, sizeof *address) ? -1 : s;
}

// Asks the server, from a socket of its own; returns the bytes that it has counted, or -1 without an answer.
static double ask(const struct sockaddr_in *address, int number) {
  int s = connected(address);
  for (int tries = 0; tries < 10; tries++) {
    char question[16] = "", answer[64] = "";
    snprintf(question, sizeof question, "q%d", number);
    send(s, question, sizeof question, 0);
    while (recv(s, answer, sizeof answer - 1, 0) > 0) {
      int of;
      unsigned long long bytes;
      if (sscanf(answer, "%d %llu", &of, &bytes) == 2 && of == number) return (double)bytes;
    }
  }
  return -1;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "server")) return serve(atoi(argv[2]));
  if (argc != 5) return 2;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[2]))};
  inet_pton(AF_INET, argv[1], &address.sin_addr);
  int s = connected(&address);
  if (s < 0 || ask(&address, 1) < 0) return 1;
  prepare((size_t)atoi(argv[3]));
  double start = now(), end = start + atof(argv[4]);
  while (now() < end) sendmmsg(s, messages, BATCH, 0);
  double took = now() - start;
  usleep(300000); // what is on the way
  double bytes = ask(&address, 2);
  if (bytes < 0) return 1;
  printf("%.4f\n", bytes * 8 / took / 1e9);
  return 0;
}
