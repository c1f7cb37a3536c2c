// Prints what the C library reads in /etc/resolv.conf.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  struct __res_state s;
  char text[64];
  memset(&s, 0, sizeof s);
  if (res_ninit(&s)) return 1;
  for (int i = 0; i < s.nscount; i++) {
    const struct sockaddr_in6 *six = s._u._ext.nsaddrs[i];
    if (s.nsaddr_list[i].sin_family == AF_INET)
      printf("server %s 0\n", inet_ntop(AF_INET, &s.nsaddr_list[i].sin_addr, text, sizeof text));
    else if (six) printf("server %s %u\n", inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text), six->sin6_scope_id);
  }
  for (int i = 0; s.dnsrch[i]; i++) printf("search [%s]\n", s.dnsrch[i]);
  for (int i = 0; i < s.nsort; i++)
    printf("sort %08x %08x\n", ntohl(s.sort_list[i].addr.s_addr), ntohl(s.sort_list[i].mask));
  printf("options %lx ndots %d retrans %d retry %d\n", s.options, s.ndots, s.retrans, s.retry);
}
