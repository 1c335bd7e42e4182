/* Arguments that are NULL, out of range or misplaced are refused with a status, and no result is written. No server is
 * run. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>
#include <tine.h>

static int checks, failures;

static void check(int holds, const char *what, int line)
{
    checks++;
    if (!holds) {
        failures++;
        fprintf(stderr, "line %d: %s (last error: %s)\n", line, what, tine_last_error());
    }
}

#define CHECK(condition) check(condition, #condition, __LINE__)
/* Refused with this status, and a text with these words. */
#define REFUSED(call, status, words) CHECK((call) == (status) && strstr(tine_last_error(), words) != NULL)

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)conn, (void)message, (void)length, (void)state;
    return TINE_OK;
}

static tine_status on_conn(tine_conn conn, void *state)
{
    (void)conn, (void)state;
    return TINE_OK;
}

static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    (void)conn, (void)closed, (void)state;
    return TINE_OK;
}

static tine_status on_worker_start(const tine_worker *worker, void **state)
{
    (void)worker, (void)state;
    return TINE_OK;
}

static tine_status on_worker_seated(const tine_worker *worker, void *state)
{
    (void)worker, (void)state;
    return TINE_OK;
}

static void on_plain(void *userdata)
{
    (void)userdata;
}

static void on_start(const tine_started *started, void *userdata)
{
    (void)started, (void)userdata;
}

static void on_worker_exit(const tine_worker_exit *exit, void *userdata)
{
    (void)exit, (void)userdata;
}

static size_t choose(const tine_route *route, void *userdata)
{
    (void)route, (void)userdata;
    return 0;
}

static void decide(const tine_crash *crash, tine_fate *fate, void *userdata)
{
    (void)crash, (void)fate, (void)userdata;
}

static ptrdiff_t find_end(const void *bytes, size_t length, size_t seen, uint64_t *cursor, void *userdata)
{
    (void)bytes, (void)seen, (void)cursor, (void)userdata;
    return (ptrdiff_t)length;
}

/* Every function that takes a server, with valid arguments except for the server. */
#define EACH(X) \
    X(tine_server_listen(SERVER, "127.0.0.1:0")) \
    X(tine_server_add_listener(SERVER, tine_listener_tcp("127.0.0.1:0"))) \
    X(tine_server_set_mode(SERVER, TINE_MODE_BASE)) \
    X(tine_server_set_workers(SERVER, 1)) \
    X(tine_server_set_standby(SERVER, 1)) \
    X(tine_server_set_reactors(SERVER, 1)) \
    X(tine_server_set_max_connections(SERVER, 1)) \
    X(tine_server_set_max_connections_per_address(SERVER, 1)) \
    X(tine_server_set_dispatch(SERVER, TINE_DISPATCH_USER_ID)) \
    X(tine_server_set_dispatch_fn(SERVER, choose, NULL)) \
    X(tine_server_set_crash_close(SERVER)) \
    X(tine_server_set_crash_redeliver(SERVER, 1)) \
    X(tine_server_set_crash_reply(SERVER, "sorry", 5)) \
    X(tine_server_set_crash_keep(SERVER)) \
    X(tine_server_set_crash_fn(SERVER, decide, NULL)) \
    X(tine_server_set_callback_limit(SERVER, 1, TINE_LIMIT_KILL)) \
    X(tine_server_set_max_requests(SERVER, 1)) \
    X(tine_server_set_worker_memory(SERVER, 1 << 20)) \
    X(tine_server_set_fail_on_crash_loop(SERVER, 1)) \
    X(tine_server_set_close_deadline(SERVER, TINE_NEVER)) \
    X(tine_server_set_shutdown_deadline(SERVER, 1)) \
    X(tine_server_set_pid_file(SERVER, "pid")) \
    X(tine_server_set_output_high_water(SERVER, 1)) \
    X(tine_server_set_output_limit(SERVER, 1)) \
    X(tine_server_set_memory_budget(SERVER, 1)) \
    X(tine_server_set_userdata(SERVER, NULL)) \
    X(tine_server_on_worker_start(SERVER, on_worker_start)) \
    X(tine_server_on_worker_seated(SERVER, on_worker_seated)) \
    X(tine_server_on_connect(SERVER, on_conn)) \
    X(tine_server_on_receive(SERVER, on_receive)) \
    X(tine_server_on_close(SERVER, on_close)) \
    X(tine_server_on_paused(SERVER, on_conn)) \
    X(tine_server_on_resumed(SERVER, on_conn)) \
    X(tine_server_on_idle(SERVER, on_conn)) \
    X(tine_server_on_worker_stop(SERVER, on_plain)) \
    X(tine_server_on_start(SERVER, on_start, NULL)) \
    X(tine_server_on_shutdown(SERVER, on_plain, NULL)) \
    X(tine_server_on_manager_start(SERVER, on_plain, NULL)) \
    X(tine_server_on_manager_stop(SERVER, on_plain, NULL)) \
    X(tine_server_on_worker_exit(SERVER, on_worker_exit, NULL))

/* Every function that takes a listener. */
#define EACH_OF_LISTENERS(X) \
    X(tine_listener_set_name(LISTENER, "name")) \
    X(tine_listener_set_protocol(LISTENER, "raw")) \
    X(tine_listener_set_delimiter(LISTENER, "\r\n", 2)) \
    X(tine_listener_set_length_prefix(LISTENER, 4, TINE_BIG_ENDIAN, TINE_COUNTS_BODY)) \
    X(tine_listener_set_framing_fn(LISTENER, find_end, NULL)) \
    X(tine_listener_set_max_message(LISTENER, 1)) \
    X(tine_listener_set_backlog(LISTENER, 1)) \
    X(tine_listener_set_open_deadline(LISTENER, 1)) \
    X(tine_listener_set_message_deadline(LISTENER, 1)) \
    X(tine_listener_set_idle(LISTENER, TINE_NEVER)) \
    X(tine_listener_set_on_idle(LISTENER, TINE_IDLE_CALL)) \
    X(tine_listener_set_write_deadline(LISTENER, 1)) \
    X(tine_listener_set_queue_deadline(LISTENER, 1)) \
    X(tine_listener_set_keepalive(LISTENER, 1000)) \
    X(tine_listener_set_user_timeout(LISTENER, 1)) \
    X(tine_listener_set_v6only(LISTENER, true)) \
    X(tine_listener_set_defer_accept(LISTENER, 0)) \
    X(tine_listener_set_receive_buffer(LISTENER, 65536)) \
    X(tine_listener_set_send_buffer(LISTENER, 65536)) \
    X(tine_listener_allow(LISTENER, "127.0.0.0/8")) \
    X(tine_listener_deny(LISTENER, "10.0.0.0/8")) \
    X(tine_listener_set_max_new_per_second(LISTENER, 100)) \
    X(tine_listener_set_address_prefix(LISTENER, 24, 48)) \
    X(tine_listener_set_mode(LISTENER, 0660)) \
    X(tine_listener_set_owner(LISTENER, "root"))

static void without_a_server(void)
{
    tine_listener *const LISTENER = NULL;
#define X(call) REFUSED(call, TINE_ERROR_NULL, "listener");
    EACH_OF_LISTENERS(X)
#undef X
    tine_listener_free(NULL);
    REFUSED(tine_server_stop(NULL), TINE_ERROR_NULL, "server");
    REFUSED(tine_server_reload(NULL), TINE_ERROR_NULL, "server");
    tine_server *const SERVER = NULL;
#define X(call) REFUSED(call, TINE_ERROR_NULL, "server");
    EACH(X)
#undef X
    REFUSED(tine_server_run(NULL), TINE_ERROR_NULL, "server");
    tine_server_free(NULL);
}

static void with_everything(void)
{
    tine_listener *const LISTENER = tine_listener_tcp("127.0.0.1:0");
#define X(call) CHECK((call) == TINE_OK);
    EACH_OF_LISTENERS(X)
#undef X
    tine_listener_free(LISTENER);
    tine_server *const SERVER = tine_server_new();
#define X(call) CHECK((call) == TINE_OK);
    EACH(X)
#undef X
    tine_server_free(SERVER);
}

/* A new server for each: the first error is kept. */
#define REFUSES(call, status, words) \
    do { \
        tine_server *s = tine_server_new(); \
        CHECK(tine_server_on_receive(s, on_receive) == TINE_OK); \
        REFUSED(call, status, words); \
        CHECK(tine_server_set_workers(NULL, 1) == TINE_ERROR_NULL); \
        REFUSED(tine_server_run(s), status, words); \
        tine_server_free(s); \
    } while (0)

/* The first error of a listener becomes its server's. */
#define LISTENER_REFUSES(call, status, words) \
    do { \
        tine_server *s = tine_server_new(); \
        tine_listener *l = tine_listener_tcp("127.0.0.1:0"); \
        CHECK(tine_server_on_receive(s, on_receive) == TINE_OK); \
        REFUSED(call, status, words); \
        CHECK(tine_listener_set_backlog(l, 1) == TINE_OK); \
        REFUSED(tine_server_add_listener(s, l), status, words); \
        REFUSED(tine_server_run(s), status, words); \
        tine_server_free(s); \
    } while (0)

/* Settings that are checked together. */
#define WRONG(call, words) \
    do { \
        tine_server *s = tine_server_new(); \
        tine_listener *l = tine_listener_tcp("127.0.0.1:0"); \
        CHECK(tine_server_on_receive(s, on_receive) == TINE_OK); \
        CHECK((call) == TINE_OK); \
        CHECK(tine_server_add_listener(s, l) == TINE_OK); \
        REFUSED(tine_server_run(s), TINE_ERROR_SETTING, words); \
        tine_server_free(s); \
    } while (0)

static void with_bad_values(void)
{
    /* Numbers without an enumerator, as another language might pass them. */
    int none[] = {-1, 7, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        REFUSES(tine_server_set_mode(s, (tine_mode)none[i]), TINE_ERROR_INVALID, "mode");
        REFUSES(tine_server_set_dispatch(s, (tine_dispatch)none[i]), TINE_ERROR_INVALID, "dispatch");
        REFUSES(tine_server_set_callback_limit(s, 1, (tine_limit_action)none[i]), TINE_ERROR_INVALID, "action");
        LISTENER_REFUSES(tine_listener_set_length_prefix(l, 2, (tine_byte_order)none[i], TINE_COUNTS_ALL), TINE_ERROR_INVALID, "order");
        LISTENER_REFUSES(tine_listener_set_length_prefix(l, 2, TINE_BIG_ENDIAN, (tine_counts)none[i]), TINE_ERROR_INVALID, "counts");
        LISTENER_REFUSES(tine_listener_set_on_idle(l, (tine_on_idle)none[i]), TINE_ERROR_INVALID, "on_idle");
        REFUSED(tine_log((tine_log_level)none[i], "text"), TINE_ERROR_INVALID, "level");
        REFUSED(tine_log_to((tine_log_level)none[i], NULL, NULL), TINE_ERROR_INVALID, "level");
        REFUSED(tine_log_to_file((tine_log_level)none[i], NULL, TINE_LOG_JSON), TINE_ERROR_INVALID, "level");
        REFUSED(tine_log_to_file(TINE_LOG_INFO, NULL, (tine_log_format)none[i]), TINE_ERROR_INVALID, "format");
    }
    LISTENER_REFUSES(tine_listener_set_length_prefix(l, 9, TINE_BIG_ENDIAN, TINE_COUNTS_ALL), TINE_ERROR_INVALID, "width");
    REFUSES(tine_server_listen(s, NULL), TINE_ERROR_NULL, "address");
    REFUSES(tine_server_add_listener(s, NULL), TINE_ERROR_NULL, "listener");
    REFUSES(tine_server_add_listener(s, tine_listener_tcp(NULL)), TINE_ERROR_NULL, "address");
    LISTENER_REFUSES(tine_listener_set_name(l, NULL), TINE_ERROR_NULL, "name");
    WRONG(tine_server_listen(s, "nonsense"), "setting listen: \"nonsense\"");
    WRONG(tine_server_listen(s, "127.0.0.1:65536"), "65536");
    WRONG((tine_listener_set_name(l, "127.0.0.1:1"), tine_server_listen(s, "127.0.0.1:1")), "two listeners have the name");
    WRONG(tine_listener_set_max_message(l, 0), "max_message: 0 is not between");
    WRONG(tine_listener_set_backlog(l, UINT32_MAX), "backlog: 4294967295");
    WRONG(tine_listener_set_open_deadline(l, 0), "open_deadline: 0 s (0 ms) is not between");
    WRONG(tine_listener_set_message_deadline(l, 0), "message_deadline: 0 s (0 ms) is not between");
    WRONG(tine_listener_set_idle(l, 0), "idle: 0 s (0 ms) is not between");
    WRONG(tine_listener_set_write_deadline(l, 0), "write_deadline: 0 s (0 ms) is not between");
    WRONG(tine_listener_set_queue_deadline(l, 0), "queue_deadline: 0 s (0 ms) is not between");
    WRONG(tine_listener_set_keepalive(l, 999), "keepalive: 0.999 s (999 ms) is not between");
    WRONG(tine_listener_set_user_timeout(l, 0), "user_timeout: 0 s (0 ms) is not between");
    WRONG((tine_server_set_mode(s, TINE_MODE_BASE), tine_server_set_crash_keep(s)), "setting on_crash: ");
    REFUSES(tine_server_listen(s, "\xff:1"), TINE_ERROR_INVALID, "UTF-8");
    LISTENER_REFUSES(tine_listener_set_protocol(l, NULL), TINE_ERROR_NULL, "protocol");
    LISTENER_REFUSES(tine_listener_set_protocol(l, "http"), TINE_ERROR_INVALID, "http");
    LISTENER_REFUSES(tine_listener_set_protocol(l, "function"), TINE_ERROR_INVALID, "function");
    LISTENER_REFUSES(tine_listener_set_delimiter(l, NULL, 2), TINE_ERROR_NULL, "delimiter");
    LISTENER_REFUSES(tine_listener_set_delimiter(l, NULL, 0), TINE_ERROR_INVALID, "delimiter");
    LISTENER_REFUSES(tine_listener_set_delimiter(l, "", 0), TINE_ERROR_INVALID, "delimiter");
    LISTENER_REFUSES(tine_listener_set_delimiter(l, "", SIZE_MAX), TINE_ERROR_INVALID, "memory");
    REFUSES(tine_server_set_crash_reply(s, NULL, 1), TINE_ERROR_NULL, "reply");
    REFUSES(tine_server_set_crash_reply(s, "", 0), TINE_ERROR_INVALID, "empty");
    REFUSES(tine_server_set_crash_redeliver(s, 0), TINE_ERROR_INVALID, "attempts: 0");
    REFUSES(tine_server_set_crash_redeliver(s, 256), TINE_ERROR_INVALID, "attempts: 256");
    REFUSES(tine_server_set_pid_file(s, NULL), TINE_ERROR_NULL, "path");
    LISTENER_REFUSES(tine_listener_set_framing_fn(l, NULL, NULL), TINE_ERROR_NULL, "function");
    REFUSES(tine_server_set_dispatch_fn(s, NULL, NULL), TINE_ERROR_NULL, "function");
    REFUSES(tine_server_set_crash_fn(s, NULL, NULL), TINE_ERROR_NULL, "function");
    REFUSES(tine_server_on_receive(s, NULL), TINE_ERROR_NULL, "function");
    REFUSES(tine_server_on_start(s, NULL, NULL), TINE_ERROR_NULL, "function");
    REFUSES(tine_server_on_worker_exit(s, NULL, NULL), TINE_ERROR_NULL, "function");

    /* Numbers of the right kind, which tine_server_run() checks. */
    tine_server *s = tine_server_new();
    CHECK(tine_server_on_receive(s, on_receive) == TINE_OK);
    CHECK(tine_server_set_workers(s, 0) == TINE_OK);
    REFUSED(tine_server_run(s), TINE_ERROR_SETTING, "setting workers: 0");
    CHECK(tine_last_errno() == 0);
    /* It has run. */
    REFUSED(tine_server_set_workers(s, 1), TINE_ERROR_ALREADY, "tine_server_new");
    REFUSED(tine_server_run(s), TINE_ERROR_ALREADY, "tine_server_new");
    tine_server_free(s);

    s = tine_server_new();
    REFUSED(tine_server_run(s), TINE_ERROR_INVALID, "tine_server_on_receive");
    tine_server_free(s);

    /* The kernel's error is available as a number, too. */
    s = tine_server_new();
    CHECK(tine_server_on_receive(s, on_receive) == TINE_OK);
    CHECK(tine_server_listen(s, "192.0.2.1:0") == TINE_OK);
    REFUSED(tine_server_run(s), TINE_ERROR_LISTEN, "192.0.2.1");
    CHECK(tine_last_errno() == EADDRNOTAVAIL);
    tine_server_free(s);
}

/* Each number is refused with the name of its setting. */
static void out_of_range(void)
{
    const uint64_t year = UINT64_C(366) * 24 * 3600 * 1000;
#define RANGE(call, words) \
    do { \
        tine_server *s = tine_server_new(); \
        CHECK(tine_server_on_receive(s, on_receive) == TINE_OK); \
        CHECK((call) == TINE_OK); \
        REFUSED(tine_server_run(s), TINE_ERROR_SETTING, words); \
        tine_server_free(s); \
    } while (0)
    RANGE(tine_server_set_workers(s, SIZE_MAX), "workers: ");
    RANGE(tine_server_set_standby(s, 512), "standby: 512");
    RANGE(tine_server_set_reactors(s, 0), "reactors: 0");
    RANGE(tine_server_set_max_connections(s, 0), "max_connections: 0");
    RANGE(tine_server_set_max_connections_per_address(s, 0), "max_connections_per_address: 0");
    RANGE(tine_server_set_callback_limit(s, year + 1, TINE_LIMIT_KILL), "callback_limit: 31622400.001 s (31622400001 ms) is");
    RANGE(tine_server_set_max_requests(s, 0), "max_requests: 0");
    RANGE(tine_server_set_worker_memory(s, 1), "worker_memory: 1");
    RANGE(tine_server_set_fail_on_crash_loop(s, year + 1000), "fail_on_crash_loop: 31622401 is");
    RANGE(tine_server_set_close_deadline(s, year + 1000), "close_deadline: 31622401 is");
    RANGE(tine_server_set_shutdown_deadline(s, year + 1000), "shutdown_deadline: 31622401 is");
    RANGE(tine_server_set_output_high_water(s, 0), "output_high_water: 0");
    RANGE(tine_server_set_output_limit(s, 0), "output_limit: 0");
    RANGE(tine_server_set_memory_budget(s, 1), "memory_budget: 1");
}

static void outside_of_callbacks(void)
{
    tine_conn conn = {1};
    struct sockaddr_storage peer = {.ss_family = 77};
    tine_listener_id listener = {77};
    uint8_t attempt = 77;
    tine_stats stats = {.callbacks = 77};
    REFUSED(tine_conn_send(conn, "x", 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_close(conn), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_reset(conn), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_set_user(conn, 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_flush(), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_stop(), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_reload(), TINE_ERROR_OUTSIDE, "callback");
    char name[8];
    REFUSED(tine_listener_name(listener, name, sizeof name), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_peer(conn, &peer), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_listener(conn, &listener), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_attempt(conn, &attempt), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_stats_read(&stats, sizeof stats), TINE_ERROR_OUTSIDE, "callback");
    const void *state = &conn;
    size_t length = 77;
    uint64_t user = 77, number = 77;
    bool is_set = true;
    REFUSED(tine_conn_state(conn, &state, &length), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_set_state(conn, "x", 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_user(conn, &user, &is_set), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_message_number(conn, &number), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_send_file(conn, 0, 0, 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_after(conn, 1, 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_cancel(conn, 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_notify_drained(conn), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_pause(conn), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_conn_resume(conn), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_post_to_seat(0, "x", 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_post_to_all("x", 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_post_to_least_busy("x", 1), TINE_ERROR_OUTSIDE, "callback");
    REFUSED(tine_post_to_owner(conn, "x", 1), TINE_ERROR_OUTSIDE, "callback");
    CHECK(state == &conn && length == 77 && user == 77 && number == 77 && is_set);
    CHECK(peer.ss_family == 77 && listener.index == 77 && attempt == 77 && stats.callbacks == 77);
}

static void texts(void)
{
    char text[TINE_ADDRESS_TEXT] = "as it was";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9501)};
    const struct sockaddr *good = (const struct sockaddr *)&address;
    REFUSED(tine_address_text(NULL, text, sizeof text), TINE_ERROR_NULL, "address");
    REFUSED(tine_address_text(good, NULL, sizeof text), TINE_ERROR_NULL, "text");
    REFUSED(tine_address_text(good, text, 3), TINE_ERROR_TOO_SMALL, "13 bytes are needed, the size is 3");
    struct sockaddr other = {.sa_family = AF_UNIX};
    REFUSED(tine_address_text(&other, text, sizeof text), TINE_ERROR_INVALID, "AF_INET");
    CHECK(strcmp(text, "as it was") == 0);
    CHECK(tine_address_text(good, text, sizeof text) == TINE_OK && strcmp(text, "0.0.0.0:9501") == 0);

    REFUSED(tine_log(TINE_LOG_ERROR, NULL), TINE_ERROR_NULL, "message");
    CHECK(tine_log(TINE_LOG_ERROR, "\xff") == TINE_OK);
    REFUSED(tine_fail(NULL), TINE_ERROR_NULL, "why");
    REFUSED(tine_fail("reasons"), TINE_ERROR_FAILED, "reasons");
    REFUSED(tine_log_to_file(TINE_LOG_OFF, "/nonexistent/log", TINE_LOG_TEXT), TINE_ERROR_SYSTEM, "/nonexistent/log");
    CHECK(tine_log_to(TINE_LOG_OFF, NULL, NULL) == TINE_OK);
    REFUSED(tine_log_to_file(TINE_LOG_OFF, NULL, TINE_LOG_TEXT), TINE_ERROR_ALREADY, "once");
    REFUSED(tine_log_to(TINE_LOG_OFF, NULL, NULL), TINE_ERROR_ALREADY, "once");

    CHECK(strcmp(tine_version(), TINE_VERSION) == 0);
    CHECK(tine_version_number() == TINE_VERSION_NUMBER);
    CHECK(strcmp(tine_strerror(TINE_OK), "success") == 0);
    CHECK(strlen(tine_strerror((tine_status)-5)) > 0 && strlen(tine_strerror((tine_status)1000)) > 0);
}

int main(void)
{
    CHECK(*tine_last_error() == '\0' && tine_last_errno() == 0);
    without_a_server();
    with_everything();
    outside_of_callbacks();
    texts();
    with_bad_values();
    out_of_range();
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
