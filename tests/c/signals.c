/* A program with handlers of its own: `signals ADDRESS:PORT [base]`.
 *
 * Each handler writes `HOST signal=N` to standard error. While the server runs, none of them runs, but that of SIGALRM in a
 * worker, whose callback has set an alarm. Afterwards each of them is there again, and that of SIGVTALRM, which is set
 * while the server runs, is still there.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tine.h>
#include <unistd.h>

static const int signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE, SIGCHLD, SIGALRM, SIGPROF};
enum { COUNT = sizeof signals / sizeof *signals };

static volatile sig_atomic_t alarms;

static void handler(int signal)
{
    char text[] = "HOST signal=00\n";
    text[12] = (char)('0' + signal / 10);
    text[13] = (char)('0' + signal % 10);
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(9);
    alarms += signal == SIGALRM;
}

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    if (length >= 5 && memcmp(message, "alarm", 5) == 0) {
        alarm(1);
        while (alarms == 0)
            pause();
        return tine_conn_send(conn, "it came\n", 8);
    }
    if (length >= 4 && memcmp(message, "slow", 4) == 0) {
        struct timespec time = {2, 0};
        while (nanosleep(&time, &time) != 0)
            ;
        return tine_conn_send(conn, "done\n", 5);
    }
    return tine_conn_send(conn, message, length);
}

/* Gives a signal the handler. */
static int handle(int signal)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    return sigaction(signal, &action, NULL);
}

/* Raises a signal, which has to have the handler. */
static void check(int signal)
{
    struct sigaction now;
    if (sigaction(signal, NULL, &now) != 0 || now.sa_handler != handler)
        fprintf(stderr, "LOST signal=%d\n", signal);
    else
        raise(signal);
}

static void on_start(const tine_started *started, void *state)
{
    (void)state;
    if (handle(SIGVTALRM) != 0)
        exit(4);
    printf("signals: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    for (int i = 0; i < COUNT; i++)
        if (handle(signals[i]) != 0)
            return 3;
    tine_server *server = tine_server_new();
    tine_server_listen(server, argv[1]);
    tine_server_set_workers(server, 2);
    if (argc > 2)
        tine_server_set_mode(server, TINE_MODE_BASE);
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    tine_server_free(server);
    fprintf(stderr, "returned %d\n", (int)status);
    for (int i = 0; i < COUNT; i++)
        check(signals[i]);
    check(SIGVTALRM);
    return status == TINE_OK ? 0 : 1;
}
