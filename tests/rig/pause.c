/* What holds a pod's namespaces, and the first process of the rig's node: it does nothing but take leave of
 * the processes that were left to it. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, NULL);
  for (;;) {
    int signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    sigwait(&children, &signal);
  }
}
