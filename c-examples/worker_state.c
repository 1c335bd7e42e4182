/* The state of a worker: made at its start, used in its callbacks, lost with it.
 *
 *     worker_state [ADDRESS:PORT]        default 127.0.0.1:9501; port 0 picks a free one
 *
 * Each line is answered with the worker, the number of lines that its process has answered, and a random number. Each
 * worker counts for itself. A worker that replaces another one starts again, after a crash or an orderly exit: data to
 * be kept belongs in a database or a file.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <tine.h>
#include <unistd.h>

struct worker {
    int64_t seat;        /* the N of worker#N */
    uint32_t generation; /* another one in each process */
    unsigned long long lines;
    unsigned short random[3]; /* of nrand48(3) */
};

/* Runs in each worker, before its first client. Its other callbacks get the pointer in *state.
 *
 * Random numbers that were seeded before the fork would be the same in each worker, and a descriptor would be shared
 * with one offset: files and connections to databases are opened here as well.
 */
static tine_status on_worker_start(const tine_worker *about, void **state)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return TINE_ERROR_FAILED;
    worker->seat = about->seat;
    worker->generation = about->generation;
    if (getentropy(worker->random, sizeof worker->random) < 0) {
        free(worker);
        return TINE_ERROR_FAILED;
    }
    *state = worker;
    return TINE_OK;
}

/* Runs in a worker, for each line. */
static tine_status on_receive(tine_conn conn, const void *line, size_t length, void *state)
{
    (void)line, (void)length;
    struct worker *worker = state;
    worker->lines++;
    char text[128];
    int written = snprintf(text, sizeof text, "worker#%" PRId64 ", process %" PRIu32 ", line %llu, random %08lx\n",
                           worker->seat, worker->generation, worker->lines, nrand48(worker->random));
    return tine_conn_send(conn, text, (size_t)written);
}

/* Runs in a worker that leaves as asked, after its last callback. Not in one that crashes: the kernel frees its memory.
 */
static void on_worker_stop(void *state)
{
    struct worker *worker = state;
    fprintf(stderr, "worker_state: worker#%" PRId64 " ends after %llu lines\n", worker->seat, worker->lines);
    free(worker);
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("worker_state: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_listener_set_delimiter(listener, "\n", 1);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 2);
    tine_server_on_worker_start(server, on_worker_start);
    tine_server_on_receive(server, on_receive);
    tine_server_on_worker_stop(server, on_worker_stop);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "worker_state: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
