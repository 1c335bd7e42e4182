/* The text of a file for every client: a timer finds silent clients, and a post reaches all workers.
 *
 *     notice [ADDRESS:PORT [FILE [MILLISECONDS]]]        default 127.0.0.1:9501, notice.txt, 30000
 *
 *     show          the text
 *     reload        all workers read the file again
 *
 * Each worker has a copy of the text. A worker that starts later reads the file at its start, so that every copy is as
 * new as the last `reload`. A post waits in the master until its callback has returned: no death of a worker loses it.
 *
 * A client that is silent for MILLISECONDS is sent `ping`, and is closed if it stays silent for as long again; any line
 * is a sign of life. The timer and the state belong to the connection and not to its worker: they survive it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tine.h>

enum { LONGEST_LINE = 4096, LONGEST_TEXT = 64 * 1024, SILENCE = 1 };

/* Set before the fork: each process has a copy. */
static const char *path = "notice.txt";
static uint64_t patience = 30 * 1000;

/* The state of a connection that was sent `ping`, and has said nothing since. At first, a state is empty. */
static const char pinged[] = "pinged";

struct worker {
    char text[LONGEST_TEXT];
    size_t length;
};

/* Returns whether the file was read. If not, the text stays as it was. */
static int read_text(struct worker *worker)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    char *text = malloc(LONGEST_TEXT);
    size_t length = text ? fread(text, 1, LONGEST_TEXT, file) : 0;
    int was_read = text && !ferror(file);
    if (was_read) {
        memcpy(worker->text, text, length);
        worker->length = length;
    }
    free(text);
    fclose(file);
    return was_read;
}

static tine_status failed(void)
{
    char why[256];
    snprintf(why, sizeof why, "%.200s: %s", path, strerror(errno));
    return tine_fail(why);
}

/* Runs in each worker, before its first client. */
static tine_status on_worker_start(const tine_worker *about, void **state)
{
    (void)about;
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return TINE_ERROR_FAILED;
    if (!read_text(worker)) {
        free(worker);
        return failed();
    }
    *state = worker;
    return TINE_OK;
}

static void on_worker_stop(void *state)
{
    free(state);
}

/* Sets the timer of a connection, the only one: there is one for each tag, and the last call counts. */
static tine_status wait_again(tine_conn conn, const char *now, size_t length)
{
    tine_status status = tine_conn_set_state(conn, now, length);
    return status == TINE_OK ? tine_conn_after(conn, patience, SILENCE) : status;
}

/* Runs in a worker, for each client that has connected. */
static tine_status on_connect(tine_conn conn, void *state)
{
    struct worker *worker = state;
    tine_status status = tine_conn_send(conn, worker->text, worker->length);
    return status == TINE_OK ? wait_again(conn, "", 0) : status;
}

static int is_line(const char *line, size_t length, const char *command)
{
    return length == strlen(command) && memcmp(line, command, length) == 0;
}

/* Runs in a worker, for each line. */
static tine_status on_receive(tine_conn conn, const void *line, size_t length, void *state)
{
    struct worker *worker = state;
    tine_status status = TINE_OK;
    if (is_line(line, length, "show\n"))
        status = tine_conn_send(conn, worker->text, worker->length);
    else if (is_line(line, length, "reload\n"))
        status = tine_post_to_all("reload", 6);
    return status == TINE_OK ? wait_again(conn, "", 0) : status;
}

/* Runs in whichever worker is there by then. A timer fires once: its callback sets the next one. */
static tine_status on_timer(tine_conn conn, uint64_t tag, void *worker)
{
    (void)tag, (void)worker;
    const void *state;
    size_t length;
    tine_status status = tine_conn_state(conn, &state, &length);
    if (status != TINE_OK)
        return status;
    if (length > 0) {
        status = tine_conn_send(conn, "bye\n", 4);
        return status == TINE_OK ? tine_conn_close(conn) : status;
    }
    status = tine_conn_send(conn, "ping\n", 5);
    return status == TINE_OK ? wait_again(conn, pinged, sizeof pinged - 1) : status;
}

/* Runs in every worker, for each `reload`: again, if it fails or its worker dies in it, three times in all. */
static tine_status on_post(const void *bytes, size_t length, void *state)
{
    (void)bytes, (void)length;
    return read_text(state) ? TINE_OK : failed();
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("notice: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc > 2)
        path = argv[2];
    if (argc > 3)
        patience = strtoull(argv[3], NULL, 10);
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_listener_set_delimiter(listener, "\n", 1);
    tine_listener_set_max_message(listener, LONGEST_LINE);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 2);
    tine_server_set_crash_redeliver(server, 3);
    tine_server_on_worker_start(server, on_worker_start);
    tine_server_on_connect(server, on_connect);
    tine_server_on_receive(server, on_receive);
    tine_server_on_timer(server, on_timer);
    tine_server_on_post(server, on_post);
    tine_server_on_worker_stop(server, on_worker_stop);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "notice: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
