/* A server on TCP port 7000 that gives each connection back what it sends, and ends when that has ended. */
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(int connection) {
  char buffer[65536];
  ssize_t got;
  while ((got = read(connection, buffer, sizeof buffer)) > 0) {
    for (ssize_t sent = 0; sent < got;) {
      ssize_t step = write(connection, buffer + sent, (size_t)(got - sent));
      if (step <= 0) return;
      sent += step;
    }
  }
}

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7000)};
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  int one = 1;
  signal(SIGCHLD, SIG_IGN);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 512) != 0) return 1;
  for (;;) {
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) continue;
    if (fork() == 0) {
      close(listener);
      serve(connection);
      _exit(0);
    }
    close(connection);
  }
}
