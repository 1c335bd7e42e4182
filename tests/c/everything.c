/* A server that uses all of tine.h, and logs the process of each callback.
 *
 *     everything [OPTION=VALUE]...
 *
 * A message is a line of words: see on_receive. A line that begins with "no" is refused by the framing function.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <tine.h>

/* The running server. */
static tine_server *the_server;

/* The state of a worker. */
struct state {
    int64_t seat;
    uint32_t generation;
    char *answer;
    /* The next `close` ends this worker. */
    int doomed;
};

static void say(const char *what)
{
    tine_log(TINE_LOG_INFO, what);
}

static void on_log(const tine_log_line *line, void *userdata)
{
    char text[512];
    /* A nested line is dropped: it would call this function without end. */
    tine_log(TINE_LOG_ERROR, "from within");
    int length = snprintf(text, sizeof text, "%s level=%d %s[%d] %s\n", (const char *)userdata, (int)line->level,
                          line->role, (int)line->pid, line->text);
    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        abort();
}

static tine_status on_worker_start(const tine_worker *worker, void **state)
{
    struct state *own = calloc(1, sizeof *own);
    own->seat = worker->seat;
    own->generation = worker->generation;
    own->answer = strdup(*state);
    *state = own;
    if (tine_flush() != TINE_ERROR_OUTSIDE || own->generation == 0)
        abort();
    tine_log(TINE_LOG_DEBUG, "is more than was asked for");
    say("runs worker_start");
    return TINE_OK;
}

static tine_status on_worker_seated(const tine_worker *worker, void *state)
{
    ((struct state *)state)->seat = worker->seat;
    say("runs worker_seated");
    return TINE_OK;
}

static void on_worker_stop(void *state)
{
    struct state *own = state;
    free(own->answer);
    free(own);
    if (tine_flush() != TINE_ERROR_OUTSIDE)
        abort();
    say("runs worker_stop");
}

static tine_status on_connect(tine_conn conn, void *state)
{
    (void)state;
    return tine_conn_send(conn, "welcome\n", 8);
}

static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    char text[64];
    (void)conn;
    if (((struct state *)state)->doomed)
        _exit(7);
    snprintf(text, sizeof text, "runs close reason=%d past_deadline=%d retried=%d", (int)closed->reason, closed->past_deadline, closed->retried);
    say(text);
    return TINE_OK;
}

static tine_status on_paused(tine_conn conn, void *state)
{
    (void)conn, (void)state;
    say("runs paused");
    return TINE_OK;
}

static tine_status on_resumed(tine_conn conn, void *state)
{
    (void)conn, (void)state;
    say("runs resumed");
    return TINE_OK;
}

static tine_status on_idle(tine_conn conn, void *state)
{
    (void)state;
    return tine_conn_send(conn, "idle\n", 5);
}

static void *call_from_a_thread(void *conn)
{
    static tine_status status;
    status = tine_conn_send(*(tine_conn *)conn, "never", 5);
    return &status;
}

static tine_status answer(tine_conn conn, const char *text)
{
    return tine_conn_send(conn, text, strlen(text));
}

static void read_figures(tine_conn conn, char *text, size_t size)
{
    struct sockaddr_storage peer;
    char address[TINE_ADDRESS_TEXT];
    char name[64];
    tine_listener_id listener;
    uint8_t attempt;
    tine_stats stats;
    memset(&stats, 0xff, sizeof stats);
    if (tine_conn_peer(conn, &peer) || tine_conn_listener(conn, &listener) || tine_conn_attempt(conn, &attempt) ||
        tine_listener_name(listener, name, sizeof name) ||
        tine_address_text((struct sockaddr *)&peer, address, sizeof address) || tine_stats_read(&stats, sizeof stats))
        abort();
    snprintf(text, size,
             "peer=%s listener=%" PRIu32 " name=%s attempt=%d seat=%" PRId64 " generation=%" PRIu32 " callbacks=%" PRIu64
             " connections=%" PRIu64 " accepted=%" PRIu64 " poisoned=%" PRIu64 "\n",
             address, listener.index, name, attempt, stats.seat, stats.generation, stats.callbacks, stats.connections,
             stats.accepted, stats.poisoned);
}

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    struct state *own = state;
    char line[256], text[256];
    tine_conn other = {0};
    unsigned long long number;
    if (length > sizeof line)
        return TINE_ERROR_FAILED;
    memcpy(line, message, length);
    line[length - 1] = '\0';

    if (strcmp(line, "figures") == 0) {
        read_figures(conn, text, sizeof text);
    } else if (strcmp(line, "name") == 0) {
        snprintf(text, sizeof text, "%" PRIu64 "\n", conn.id);
    } else if (strcmp(line, "state") == 0) {
        snprintf(text, sizeof text, "seat=%" PRId64 " answer=%s\n", own->seat, own->answer);
    } else if (strcmp(line, "doomed") == 0) {
        own->doomed = 1;
        snprintf(text, sizeof text, "generation=%" PRIu32 "\n", own->generation);
    } else if (sscanf(line, "greet %" SCNu64, &other.id) == 1) {
        snprintf(text, sizeof text, "status=%d\n", (int)tine_conn_send(other, "hello\n", 6));
    } else if (sscanf(line, "close %" SCNu64, &other.id) == 1) {
        snprintf(text, sizeof text, "status=%d\n", (int)tine_conn_close(other));
    } else if (sscanf(line, "reset %" SCNu64, &other.id) == 1) {
        snprintf(text, sizeof text, "status=%d\n", (int)tine_conn_reset(other));
    } else if (sscanf(line, "ask %" SCNu64, &other.id) == 1) {
        tine_listener_id listener = {77}, none = {7};
        tine_status status = tine_conn_listener(other, &listener);
        snprintf(text, sizeof text, "status=%d listener=%" PRIu32 " name=%d user=%d\n", (int)status, listener.index,
                 (int)tine_listener_name(none, text, sizeof text), (int)tine_conn_set_user(other, 1));
    } else if (strcmp(line, "stop") == 0) {
        snprintf(text, sizeof text, "status=%d\n", (int)tine_stop());
    } else if (strcmp(line, "reload") == 0) {
        snprintf(text, sizeof text, "status=%d\n", (int)tine_reload());
    } else if (strcmp(line, "stop the master's way") == 0) {
        snprintf(text, sizeof text, "status=%d\n", (int)tine_server_stop(the_server));
    } else if (sscanf(line, "user %llu", &number) == 1) {
        snprintf(text, sizeof text, "status=%d\n", (int)tine_conn_set_user(conn, number));
    } else if (sscanf(line, "much %llu", &number) == 1) {
        char *much = calloc(1, number);
        tine_status status = tine_conn_send(conn, much, number);
        free(much);
        if (status != TINE_OK)
            return status;
        snprintf(text, sizeof text, "sent\n");
    } else if (strcmp(line, "null") == 0) {
        snprintf(text, sizeof text, "status=%d %d %d\n", (int)tine_conn_send(conn, NULL, 0),
                 (int)tine_conn_send(conn, NULL, 1), (int)tine_conn_peer(conn, NULL));
    } else if (strcmp(line, "size") == 0) {
        tine_stats stats;
        snprintf(text, sizeof text, "status=%d\n", (int)tine_stats_read(&stats, sizeof stats - 1));
    } else if (strcmp(line, "thread") == 0) {
        pthread_t thread;
        void *status;
        if (pthread_create(&thread, NULL, call_from_a_thread, &conn) || pthread_join(thread, &status))
            abort();
        snprintf(text, sizeof text, "status=%d\n", *(int *)status);
    } else if (strcmp(line, "run") == 0) {
        tine_server *inner = tine_server_new();
        tine_server_on_receive(inner, on_receive);
        snprintf(text, sizeof text, "status=%d\n", (int)tine_server_run(inner));
        tine_server_free(inner);
    } else if (strcmp(line, "fork") == 0) {
        int answers[2], status;
        pid_t child;
        if (pipe(answers) || (child = fork()) < 0)
            abort();
        if (child == 0) {
            status = (int)answer(conn, "never\n");
            if (write(answers[1], &status, sizeof status) < 0)
                abort();
            return TINE_OK;
        }
        if (read(answers[0], &status, sizeof status) != sizeof status || waitpid(child, NULL, 0) != child)
            abort();
        close(answers[0]), close(answers[1]);
        snprintf(text, sizeof text, "status=%d\n", status);
    } else if (strcmp(line, "flush, die") == 0) {
        if (answer(conn, "flushed\n") || tine_flush())
            abort();
        _exit(7);
    } else if (strcmp(line, "fail") == 0) {
        return TINE_ERROR_FAILED;
    } else if (strcmp(line, "fail, say why") == 0) {
        return tine_fail("no such thing as \xff");
    } else if (strcmp(line, "77") == 0) {
        return (tine_status)77;
    } else if (strncmp(line, "die", 3) == 0) {
        uint8_t attempt;
        if (tine_conn_attempt(conn, &attempt))
            abort();
        if (attempt < 2)
            _exit(7);
        snprintf(text, sizeof text, "survived %d\n", attempt);
    } else {
        snprintf(text, sizeof text, "what?\n");
    }
    return answer(conn, text);
}

static ptrdiff_t find_line(const void *bytes, size_t length, size_t seen, uint64_t *cursor, void *userdata)
{
    /* What the last call has left, and nothing at the beginning of a message. */
    if (strcmp(userdata, "framing") != 0 || seen > length || *cursor != seen)
        abort();
    *cursor = length;
    const char *end = memchr((const char *)bytes + seen, '\n', length - seen);
    if (length >= 2 && memcmp(bytes, "no", 2) == 0)
        return -1;
    /* A line that must come in parts, to test the argument `seen`. */
    if (length >= 4 && memcmp(bytes, "part", 4) == 0 && end && seen != 4)
        return -1;
    return end ? end - (const char *)bytes + 1 : 0;
}

/* Connections with a user id go to the seat of that number; others stay. */
static size_t choose(const tine_route *route, void *userdata)
{
    char text[TINE_ADDRESS_TEXT];
    if (strcmp(userdata, "dispatch") != 0 || tine_address_text(route->peer, text, sizeof text) || route->seats != 2 ||
        (route->message == NULL) != (route->length == 0) || route->conn.id == 0)
        abort();
    if (route->user && *route->user == 100)
        return route->listener.index;
    return route->user ? (size_t)*route->user : route->seat;
}

static void decide(const tine_crash *crash, tine_fate *fate, void *userdata)
{
    char text[TINE_ADDRESS_TEXT];
    if (strcmp(userdata, "crash") != 0 || tine_address_text(crash->peer, text, sizeof text) || crash->conn.id == 0 ||
        fate->on_crash != TINE_ON_CRASH_CLOSE || fate->attempts != 3)
        abort();
    snprintf(text, sizeof text, "runs crash event=%d attempts=%d failed=%d flushed=%d length=%zu",
             (int)crash->event, crash->attempts, crash->failed, crash->flushed, crash->length);
    say(text);
    if (crash->event != TINE_EVENT_RECEIVE || crash->flushed)
        return;
    if (crash->length >= 9 && memcmp(crash->message, "die again", 9) == 0)
        fate->on_crash = TINE_ON_CRASH_REDELIVER;
    if (crash->length >= 9 && memcmp(crash->message, "die sorry", 9) == 0) {
        fate->on_crash = TINE_ON_CRASH_REPLY;
        fate->reply = "sorry\n";
        fate->reply_length = 6;
    }
    if (crash->length >= 9 && memcmp(crash->message, "die wrong", 9) == 0)
        fate->on_crash = (tine_on_crash)99;
    if (crash->length >= 8 && memcmp(crash->message, "die null", 8) == 0) {
        fate->on_crash = TINE_ON_CRASH_REPLY;
        fate->reply_length = 6;
    }
}

static void on_start(const tine_started *started, void *userdata)
{
    char text[128];
    snprintf(text, sizeof text, "runs start %s mode=%d workers=%zu reactors=%zu pid=%d", (const char *)userdata,
             (int)started->mode, started->workers, started->reactors, (int)started->pid);
    say(text);
    for (size_t i = 0; i < started->addresses_length; i++) {
        if (started->addresses[i].listener.index != i || strncmp(started->addresses[i].name, "listener-", 9) != 0)
            abort();
        printf("everything: listening on %s\n", started->addresses[i].text);
    }
    fflush(stdout);
}

static void on_plain(void *userdata)
{
    say(userdata);
}

static void on_worker_exit(const tine_worker_exit *exit, void *userdata)
{
    char text[128];
    if (exit->pid <= 1)
        abort();
    snprintf(text, sizeof text, "runs %s seat=%" PRId64 " status=%d signal=%d abnormal=%d", (const char *)userdata,
             exit->seat, (int)exit->status, (int)exit->signal, exit->abnormal);
    say(text);
}

/* Returns whether the option is one of a listener, and sets it if there is a listener. */
/* A deadline by its name, in milliseconds. */
static int set_deadline(tine_listener *listener, const char *option)
{
    static const struct {
        const char *name;
        tine_status (*set)(tine_listener *, uint64_t);
    } all[] = {
        {"open", tine_listener_set_open_deadline},
        {"message", tine_listener_set_message_deadline},
        {"idle", tine_listener_set_idle},
        {"write", tine_listener_set_write_deadline},
        {"queue", tine_listener_set_queue_deadline},
        {"keepalive", tine_listener_set_keepalive},
        {"user-timeout", tine_listener_set_user_timeout},
    };
    char name[32];
    unsigned long long time;
    if (strcmp(option, "on-idle=call") == 0) {
        if (listener)
            tine_listener_set_on_idle(listener, TINE_IDLE_CALL);
        return 1;
    }
    if (sscanf(option, "deadline=%31[a-z-],%llu", name, &time) != 2)
        return 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (listener && strcmp(name, all[i].name) == 0)
            all[i].set(listener, time);
    return 1;
}

static int set_listener(tine_listener *listener, const char *option)
{
    unsigned long long number;
    int order, counts;
    int is_protocol = strncmp(option, "protocol=", 9) == 0, is_delimiter = strncmp(option, "delimiter=", 10) == 0;
    int is_length = sscanf(option, "length=%llu,%d,%d", &number, &order, &counts) == 3;
    if (listener && is_protocol)
        tine_listener_set_protocol(listener, option + 9);
    else if (listener && is_delimiter)
        tine_listener_set_delimiter(listener, option + 10, strlen(option + 10));
    else if (listener && is_length)
        tine_listener_set_length_prefix(listener, number, (tine_byte_order)order, (tine_counts)counts);
    return set_deadline(listener, option) || is_protocol || is_delimiter || is_length || strncmp(option, "listen=", 7) == 0;
}

static void set(tine_server *server, const char *option)
{
    unsigned long long number;
    if (strcmp(option, "base") == 0)
        tine_server_set_mode(server, TINE_MODE_BASE);
    else if (strcmp(option, "crash=ask") == 0)
        tine_server_set_crash_fn(server, decide, "crash");
    else if (strcmp(option, "crash=reply") == 0)
        tine_server_set_crash_reply(server, "sorry", 5);
    else if (strcmp(option, "crash=keep") == 0)
        tine_server_set_crash_keep(server);
    else if (sscanf(option, "crash=redeliver=%llu", &number) == 1)
        tine_server_set_crash_redeliver(server, (uint8_t)number);
    else if (sscanf(option, "dispatch=%llu", &number) == 1)
        tine_server_set_dispatch(server, (tine_dispatch)number);
    else if (strcmp(option, "dispatch=ask") == 0)
        tine_server_set_dispatch_fn(server, choose, "dispatch");
    else if (sscanf(option, "standby=%llu", &number) == 1)
        tine_server_set_standby(server, number);
    else if (sscanf(option, "high-water=%llu", &number) == 1)
        tine_server_set_output_high_water(server, number);
    else if (sscanf(option, "output-limit=%llu", &number) == 1)
        tine_server_set_output_limit(server, number);
    else if (sscanf(option, "per-address=%llu", &number) == 1)
        tine_server_set_max_connections_per_address(server, number);
    else if (strcmp(option, "never") == 0)
        tine_server_set_close_deadline(server, TINE_NEVER);
    else if (strncmp(option, "pid-file=", 9) == 0)
        tine_server_set_pid_file(server, option + 9);
    else
        abort();
}

/* Every listener has the same protocol, and a name. */
static void listen_on(tine_server *server, const char *address, int number, int argc, char **argv)
{
    char name[32];
    tine_listener *listener = tine_listener_tcp(address);
    snprintf(name, sizeof name, "listener-%d", number);
    tine_listener_set_name(listener, name);
    tine_listener_set_framing_fn(listener, find_line, "framing");
    for (int i = 1; i < argc; i++)
        set_listener(listener, argv[i]);
    tine_server_add_listener(server, listener);
}

int main(int argc, char **argv)
{
    char answer[] = "42";
    tine_server *server = tine_server_new();
    if (tine_log_to(TINE_LOG_INFO, on_log, "LOG"))
        abort();
    tine_server_set_workers(server, 2);
    if (argc < 2 || strcmp(argv[1], "base") != 0)
        tine_server_set_reactors(server, 1);
    for (int i = 1, listeners = 0; i < argc; i++)
        if (strncmp(argv[i], "listen=", 7) == 0)
            listen_on(server, argv[i] + 7, listeners++, argc, argv);
    for (int i = 1; i < argc; i++)
        if (!set_listener(NULL, argv[i]))
            set(server, argv[i]);
    if (tine_server_stop(server) != TINE_ERROR_NOT_RUNNING)
        abort();
    the_server = server;
    tine_server_set_userdata(server, answer);
    tine_server_on_worker_start(server, on_worker_start);
    tine_server_on_worker_seated(server, on_worker_seated);
    tine_server_on_connect(server, on_connect);
    tine_server_on_receive(server, on_receive);
    tine_server_on_close(server, on_close);
    tine_server_on_paused(server, on_paused);
    tine_server_on_resumed(server, on_resumed);
    tine_server_on_idle(server, on_idle);
    tine_server_on_worker_stop(server, on_worker_stop);
    tine_server_on_start(server, on_start, "started");
    tine_server_on_shutdown(server, on_plain, "runs shutdown");
    tine_server_on_manager_start(server, on_plain, "runs manager_start");
    tine_server_on_manager_stop(server, on_plain, "runs manager_stop");
    tine_server_on_worker_exit(server, on_worker_exit, "worker_exit");
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "everything: %s\n", tine_last_error());
    if (tine_server_reload(server) != TINE_ERROR_NOT_RUNNING)
        abort();
    tine_server_free(server);
    return status != TINE_OK;
}
