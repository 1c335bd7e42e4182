/* A server whose callbacks keep state, set timers and post: what lasts longer than one callback.
 *
 *     lasting [base]
 *
 * A message is a line of words: see on_receive.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <tine.h>
#include <unistd.h>

/* Sends the bytes 2 to 5 of a file, and tells what it may not send. */
static void file(tine_conn conn, const char *path, char *text, size_t size)
{
    int opened = open(path, O_RDONLY), written = open(path, O_WRONLY), ends[2];
    if (opened < 0 || written < 0 || pipe(ends))
        abort();
    int sent = tine_conn_send_file(conn, opened, 2, 3);
    snprintf(text, size, " status=%d pipe=%d written=%d none=%d closed=%d beyond=%d overflow=%d empty=%d\n", sent,
             (int)tine_conn_send_file(conn, ends[0], 0, 1), (int)tine_conn_send_file(conn, written, 0, 1),
             (int)tine_conn_send_file(conn, -1, 0, 1), (int)tine_conn_send_file(conn, 1000, 0, 1),
             (int)tine_conn_send_file(conn, opened, 2, 1000), (int)tine_conn_send_file(conn, opened, 2, UINT64_MAX),
             (int)tine_conn_send_file(conn, opened, 2, 0));
    close(opened), close(written), close(ends[0]), close(ends[1]);
}

static tine_status answer(tine_conn conn, const char *text)
{
    return tine_conn_send(conn, text, strlen(text));
}

/* Appends a letter to the state of the connection, and tells what it has. */
static void push(tine_conn conn, char letter, char *text, size_t size)
{
    static char too_long[TINE_MOST_STATE + 1];
    const void *state;
    char grown[64];
    size_t length;
    uint64_t user, number;
    bool is_set;
    if (tine_conn_state(conn, &state, &length) || length >= sizeof grown || tine_conn_user(conn, &user, &is_set) ||
        tine_conn_message_number(conn, &number))
        abort();
    memcpy(grown, state, length);
    grown[length++] = letter;
    if (tine_conn_set_state(conn, grown, length) || tine_conn_state(conn, &state, &length))
        abort();
    snprintf(text, size, "state=%.*s number=%" PRIu64 " user=%" PRIu64 " set=%d too long=%d\n", (int)length,
             (const char *)state, number, user, is_set, (int)tine_conn_set_state(conn, too_long, sizeof too_long));
}

/* Commands on groups. Names are words. */
static bool group(tine_conn conn, const char *line, char *text, size_t size)
{
    char command[16], name[32];
    const void *first, *second;
    size_t length, none, members;
    tine_conn nobody = {0};
    if (sscanf(line, "%15s %31s", command, name) != 2)
        return false;
    if (strcmp(command, "join") == 0) {
        static char long_name[TINE_MOST_NAME + 1];
        int joined = tine_conn_join(conn, name, strlen(name));
        if (tine_conn_group(conn, 0, &first, &length) || tine_conn_group(conn, 1, &second, &none))
            abort();
        snprintf(text, size, "status=%d %d group=%.*s then=%d %zu\n", joined,
                 (int)tine_conn_join(conn, long_name, sizeof long_name), (int)length, (const char *)first, second != NULL,
                 none);
    } else if (strcmp(command, "leave") == 0)
        snprintf(text, size, "status=%d\n", (int)tine_conn_leave(conn, name, strlen(name)));
    else if (strcmp(command, "size") == 0) {
        int status = tine_group_size(name, strlen(name), &members);
        snprintf(text, size, "status=%d members=%zu null=%d\n", status, members, (int)tine_group_size(name, 1, NULL));
    } else if (strcmp(command, "publish") == 0) {
        /* In this order, which the arguments of a call would not keep. */
        int all = tine_publish(name, strlen(name), "all\n", 4, nobody);
        int others = tine_publish_lossy(name, strlen(name), "others\n", 7, conn);
        snprintf(text, size, "status=%d %d %d\n", all, others, (int)tine_publish(NULL, 1, "", 0, nobody));
    } else
        return false;
    return true;
}

/* Lists all connections, and finds this one. */
static void list(tine_conn conn, char *text, size_t size)
{
    tine_conn_info infos[16];
    tine_conn other = conn;
    struct sockaddr_storage peer;
    size_t count, few, index, own = 16;
    bool exists, gone = false;
    int status = tine_connections(infos, sizeof infos[0], 16, &count);
    for (index = 0; status == TINE_OK && index < count && index < 16; index++)
        if (infos[index].conn.id == conn.id)
            own = index;
    other.id += 1000; /* The same place, at another time. */
    if (own == 16)
        abort();
    memcpy(&peer, infos[own].peer, sizeof peer);
    if (peer.ss_family != AF_INET || infos[own].age > 3600000 ||
        tine_conn_exists(conn, &exists) || tine_connections(NULL, sizeof infos[0], 0, &few))
        abort();
    snprintf(text, size, "status=%d count=%zu few=%zu user=%" PRIu64 " set=%d unsent=%" PRIu64 " exists=%d %d %d null=%d %d size=%d\n",
             status, count, few, infos[own].user, infos[own].has_user, infos[own].unsent, exists,
             (int)tine_conn_exists(other, &gone), gone,
             (int)tine_connections(NULL, sizeof infos[0], 1, &few), (int)tine_conn_exists(conn, NULL),
             (int)tine_connections(infos, 1, 16, &few));
}

/* Of this worker, from its start to its end. */
static tine_poster *poster;

struct work {
    tine_poster *poster;
    tine_conn conn;
    int64_t seat;
    int status[3];
};

/* Runs in a thread of the worker. */
static void *post_in_thread(void *argument)
{
    struct work *work = argument;
    work->status[0] = tine_poster_post(work->poster, work->seat, &work->conn, sizeof work->conn);
    work->status[1] = tine_poster_post_to_owner(work->poster, work->conn, &work->conn, sizeof work->conn);
    work->status[2] = tine_poster_new(&work->poster);
    tine_poster_free(work->poster);
    return NULL;
}

/* A thread posts to a seat, and to the worker of this connection. */
static void post_by_thread(tine_conn conn, int64_t seat, char *text, size_t size)
{
    struct work work = {tine_poster_clone(poster), conn, seat, {0}};
    tine_conn none = {0};
    tine_poster *made;
    pthread_t thread;
    if (pthread_create(&thread, NULL, post_in_thread, &work) || pthread_join(thread, NULL))
        abort();
    if (tine_poster_clone(NULL) || tine_poster_new(NULL) != TINE_ERROR_NULL || tine_poster_new(&made))
        abort();
    snprintf(text, size, "status=%d %d %d null=%d none=%d long=%d\n", work.status[0], work.status[1], work.status[2],
             (int)tine_poster_post(NULL, 0, "", 0), (int)tine_poster_post_to_owner(made, none, "", 0),
             (int)tine_poster_post(made, 0, NULL, 1));
    tine_poster_free(made);
    tine_poster_free(NULL);
}

static tine_status on_worker_start(const tine_worker *worker, void **state)
{
    (void)worker;
    (void)state;
    return tine_poster_new(&poster);
}

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    char line[256], text[256] = "what?\n";
    tine_conn none = {0};
    unsigned long long number;
    (void)state;
    if (length > sizeof line)
        return TINE_ERROR_FAILED;
    memcpy(line, message, length);
    line[length - 1] = '\0';

    if (strncmp(line, "push ", 5) == 0)
        push(conn, line[5], text, sizeof text);
    else if (sscanf(line, "user %llu", &number) == 1)
        snprintf(text, sizeof text, "status=%d\n", (int)tine_conn_set_user(conn, number));
    else if (strncmp(line, "file ", 5) == 0)
        file(conn, line + 5, text, sizeof text);
    else if (sscanf(line, "post %llu", &number) == 1)
        snprintf(text, sizeof text, "status=%d %d %d\n", (int)tine_post_to_seat(number, &conn, sizeof conn),
                 (int)tine_post_to_all(NULL, 1), (int)tine_post_to_owner(none, &conn, sizeof conn));
    else if (strcmp(line, "list") == 0)
        list(conn, text, sizeof text);
    else if (sscanf(line, "thread %llu", &number) == 1)
        post_by_thread(conn, (int64_t)number, text, sizeof text);
    else if (strcmp(line, "post to me") == 0)
        snprintf(text, sizeof text, "status=%d\n", (int)tine_post_to_owner(conn, &conn, sizeof conn));
    else if (strcmp(line, "post to any") == 0)
        snprintf(text, sizeof text, "status=%d\n", (int)tine_post_to_least_busy(&conn, sizeof conn));
    else if (sscanf(line, "after %llu", &number) == 1) {
        /* In this order, which the arguments of a call would not keep. */
        int first = tine_conn_after(conn, number, 7), second = tine_conn_after(conn, 3600000, 8);
        int cancelled = tine_conn_cancel(conn, 8);
        snprintf(text, sizeof text, "status=%d %d %d\n", first, second, cancelled);
    } else if (sscanf(line, "later %llu", &number) == 1) {
        /* The answer is the timer's, or there is none. */
        static char too_long[TINE_MOST_REPLY + 1];
        if (tine_conn_answer_within(conn, 1000, too_long, sizeof too_long) != TINE_ERROR_INVALID ||
            tine_conn_answer_within(conn, 1000, NULL, 1) != TINE_ERROR_NULL ||
            tine_conn_answer_within(conn, 1000, "sorry\n", 6) || tine_conn_after(conn, number, 9))
            abort();
        return TINE_OK;
    } else if (sscanf(line, "tick %llu", &number) == 1) {
        /* Its tag is the connection. */
        int cancelled = tine_after(3600000, 5, TINE_RUN_ONE) || tine_cancel(5), invalid = tine_every(1, 1, 9);
        int each = tine_after(number, conn.id, TINE_RUN_EACH), one = tine_every(3600000, 6, TINE_RUN_ONE);
        snprintf(text, sizeof text, "status=%d %d %d %d\n", cancelled, invalid, each, one);
    } else if (sscanf(line, "task %llu", &number) == 1) {
        /* The second one replaces the first. */
        tine_task_options options = {.delay = 3600000, .has_key = true, .key = 5, .has_tag = true, .tag = 9};
        int first = tine_task(&conn, sizeof conn, &options), plain, second;
        options.delay = number;
        second = tine_task(&conn, sizeof conn, &options);
        plain = tine_task(NULL, 0, NULL);
        snprintf(text, sizeof text, "status=%d %d %d null=%d finish=%d\n", first, second, plain,
                 (int)tine_task(NULL, 1, NULL), (int)tine_task_finish("", 0));
    } else if (strcmp(line, "drain") == 0) {
        int paused = tine_conn_pause(conn), resumed = tine_conn_resume(conn);
        int asked = tine_conn_notify_drained(conn);
        snprintf(text, sizeof text, "status=%d %d %d\n", paused, resumed, asked);
    } else if (group(conn, line, text, sizeof text))
        return answer(conn, text);
    return answer(conn, text);
}

/* Answers the connection that was posted. A callback for a post is about no connection. */
static tine_status on_post(const void *bytes, size_t length, void *state)
{
    tine_conn conn;
    tine_stats stats;
    char text[64];
    (void)state;
    if (length != sizeof conn || tine_stats_read(&stats, sizeof stats))
        return TINE_ERROR_FAILED;
    memcpy(&conn, bytes, sizeof conn);
    snprintf(text, sizeof text, "posted in %" PRId64 " flush=%d state=%d\n", stats.seat, (int)tine_flush(),
             (int)tine_conn_set_state(conn, "", 0));
    return answer(conn, text);
}

/* Runs in a task worker. A task without bytes fails. */
static tine_status on_task(const void *bytes, size_t length, void *state)
{
    tine_conn conn;
    (void)state;
    if (length != sizeof conn)
        return TINE_ERROR_FAILED;
    memcpy(&conn, bytes, sizeof conn);
    if (tine_task_finish("none", 4) || tine_task_finish(&conn, sizeof conn))
        abort();
    return answer(conn, "task\n");
}

static tine_status on_finished(uint64_t tag, const void *result, size_t length, void *state)
{
    tine_conn conn;
    char text[64];
    (void)state;
    if (length != sizeof conn)
        return TINE_ERROR_FAILED;
    memcpy(&conn, result, sizeof conn);
    snprintf(text, sizeof text, "finished %" PRIu64 " finish=%d\n", tag, (int)tine_task_finish("", 0));
    return answer(conn, text);
}

static void on_task_failed(const tine_failed_task *failed, void *userdata)
{
    printf("%s: %zu bytes tag=%d key=%d seat<2=%d attempts=%" PRIu32 " failed=%d flushed=%d\n", (const char *)userdata,
           failed->length, failed->has_tag, failed->has_key, failed->seat < 2, failed->attempts, failed->failed,
           failed->flushed);
    fflush(stdout);
}

/* The server's own one has the tag 0, and answers nobody. */
static tine_status on_server_timer(uint64_t tag, void *state)
{
    tine_conn conn = {.id = tag};
    (void)state;
    return tag == 0 ? TINE_OK : answer(conn, "tick\n");
}

static tine_status on_timer(tine_conn conn, uint64_t tag, void *state)
{
    char text[64];
    (void)state;
    snprintf(text, sizeof text, "fired %" PRIu64 "\n", tag);
    return answer(conn, text);
}

static tine_status on_drained(tine_conn conn, void *state)
{
    (void)state;
    return answer(conn, "drained\n");
}

static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("lasting: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp("127.0.0.1:0");
    if (tine_listener_set_delimiter(listener, "\n", 1) || tine_server_add_listener(server, listener))
        abort();
    tine_server_set_workers(server, 2);
    if (argc > 1 && strcmp(argv[1], "base") == 0)
        tine_server_set_mode(server, TINE_MODE_BASE);
    tine_server_on_start(server, on_start, NULL);
    tine_server_on_worker_start(server, on_worker_start);
    tine_server_on_receive(server, on_receive);
    tine_server_on_timer(server, on_timer);
    tine_server_on_drained(server, on_drained);
    tine_server_on_post(server, on_post);
    tine_server_on_server_timer(server, on_server_timer);
    tine_server_every(server, 5, 0, TINE_RUN_EACH);
    tine_server_on_task(server, on_task);
    tine_server_on_finished(server, on_finished);
    tine_server_on_task_failed(server, on_task_failed, "failed task");
    if (argc > 1 && strcmp(argv[1], "process") == 0) {
        tine_server_set_task_workers(server, 1);
        tine_server_set_task_attempts(server, 2);
        tine_server_set_task_queue(server, 100);
        tine_server_set_task_queue_bytes(server, 100000);
    }
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "lasting: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
