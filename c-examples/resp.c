/* A server for redis clients, with its keys in an SQLite database. Increments happen exactly once.
 *
 *     resp [ADDRESS:PORT [DATABASE [--die-after-commit]]]        default 127.0.0.1:6399, resp.db
 *
 *     PING, ECHO TEXT, GET KEY, SET KEY VALUE, DEL KEY, EXISTS KEY, INCR KEY, QUIT
 *
 * A command whose worker dies runs again in another worker. If the first one had written already, the client would find
 * its counter two higher. So each write keeps its reply in the same transaction, under the number of its message, and
 * another attempt looks for that first. One reply for each connection is enough, since its commands run one after the
 * other.
 *
 * --die-after-commit ends the worker after the transaction and before the reply, at each first attempt of a write: the
 * worst moment.
 *
 * The protocol is RESP 2, https://redis.io/docs/latest/develop/reference/protocol-spec/. Link with -lsqlite3.
 */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <tine.h>

enum { LONGEST = 1 << 20, MOST_DIGITS = 7, MOST_WORDS = 16, LONGEST_REPLY = 64, BUSY_MILLISECONDS = 10 * 1000 };

/* What the command line has said: each process has a copy. */
static const char *path = "resp.db";
static int dies_after_commit;

/* A part of a command, without a NUL at its end. */
struct text {
    const char *bytes;
    size_t length;
};

enum line { LINE_BAD = -1, LINE_MORE, LINE_NUMBER };

/* Reads a line with a number, as "$12\r\n". Writes the number, and the length of the line. */
static enum line read_number(const char *bytes, size_t length, char sign, size_t *number, size_t *line)
{
    size_t at = 1, value = 0;
    if (length == 0)
        return LINE_MORE;
    if (bytes[0] != sign)
        return LINE_BAD;
    while (at < length && at <= MOST_DIGITS && bytes[at] >= '0' && bytes[at] <= '9')
        value = 10 * value + (size_t)(bytes[at++] - '0');
    if (value > LONGEST || (at < length && bytes[at] != '\r') || (at + 1 < length && bytes[at + 1] != '\n') ||
        (at == 1 && at < length))
        return LINE_BAD;
    if (at + 1 >= length)
        return LINE_MORE;
    *number = value;
    *line = at + 2;
    return LINE_NUMBER;
}

/* Finds the end of a command, "*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n" or a line; runs in the master. The cursor has the
 * number of words that are still to come, and the place of the next one: a command in many parts is not walked from its
 * first byte each time.
 */
static ptrdiff_t find_end(const void *data, size_t length, size_t seen, uint64_t *cursor, void *userdata)
{
    (void)userdata;
    const char *bytes = data;
    if (bytes[0] != '*') {
        const char *end = memchr(bytes + seen, '\n', length - seen);
        return end ? end + 1 - bytes : 0;
    }
    size_t left = *cursor >> 32, at = *cursor & UINT32_MAX, word, line;
    if (at == 0) {
        enum line found = read_number(bytes, length, '*', &left, &at);
        if (found != LINE_NUMBER)
            return found;
        if (left > MOST_WORDS)
            return -1;
    }
    for (; left > 0; left--) {
        *cursor = (uint64_t)left << 32 | at;
        enum line found = at < length ? read_number(bytes + at, length - at, '$', &word, &line) : LINE_MORE;
        if (found == LINE_BAD || at > LONGEST)
            return -1;
        if (found == LINE_MORE)
            return 0;
        at += line + word + 2;
    }
    return (ptrdiff_t)at;
}

static int is_blank(char byte)
{
    return byte == ' ' || byte == '\r' || byte == '\n';
}

/* Writes the words of a command, which find_end() has found. Returns their number, or -1. */
static int split(const char *bytes, size_t length, struct text words[MOST_WORDS])
{
    int count = 0;
    size_t at = 0, left, line;
    if (bytes[0] == '*') {
        read_number(bytes, length, '*', &left, &at);
        for (; left > 0; left--, count++) {
            read_number(bytes + at, length - at, '$', &words[count].length, &line);
            words[count].bytes = bytes + at + line;
            at += line + words[count].length + 2;
            if (memcmp(bytes + at - 2, "\r\n", 2) != 0)
                return -1;
        }
        return count;
    }
    for (;;) {
        while (at < length && is_blank(bytes[at]))
            at++;
        if (at == length)
            return count;
        if (count == MOST_WORDS)
            return -1;
        size_t begin = at;
        while (at < length && !is_blank(bytes[at]))
            at++;
        words[count++] = (struct text){bytes + begin, at - begin};
    }
}

struct worker {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *rollback, *get, *set, *delete, *known, *keep, *forget;
};

static tine_status say(tine_conn conn, const char *text)
{
    return tine_conn_send(conn, text, strlen(text));
}

/* Runs a statement without rows, and makes it ready for the next use. */
static int run(sqlite3_stmt *statement)
{
    int outcome = sqlite3_step(statement);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return outcome == SQLITE_DONE;
}

/* Keys and values are BLOBs, which may have any bytes. SQLITE_STATIC: they are valid until the statement has run. */
static int bind(sqlite3_stmt *statement, int position, struct text text)
{
    return sqlite3_bind_blob(statement, position, text.bytes, (int)text.length, SQLITE_STATIC) == SQLITE_OK;
}

/* What a command does to the database. It writes its reply, and returns whether the database has done it. */
typedef int (*write_fn)(struct worker *worker, const struct text *words, char reply[LONGEST_REPLY]);

static int set(struct worker *worker, const struct text *words, char reply[LONGEST_REPLY])
{
    strcpy(reply, "+OK\r\n");
    return bind(worker->set, 1, words[1]) && bind(worker->set, 2, words[2]) && run(worker->set);
}

static int delete(struct worker *worker, const struct text *words, char reply[LONGEST_REPLY])
{
    int done = bind(worker->delete, 1, words[1]) && run(worker->delete);
    snprintf(reply, LONGEST_REPLY, ":%d\r\n", sqlite3_changes(worker->db));
    return done;
}

/* Reads a number in the one form that it is written in: without blanks, a plus, or zeros in front. Returns whether it
 * is one.
 */
static int read_integer(struct text text, int64_t *number)
{
    char copy[24], again[24];
    if (text.length == 0 || text.length >= sizeof copy)
        return 0;
    memcpy(copy, text.bytes, text.length);
    copy[text.length] = '\0';
    *number = strtoimax(copy, NULL, 10);
    int length = snprintf(again, sizeof again, "%" PRId64, *number);
    return (size_t)length == text.length && memcmp(again, text.bytes, text.length) == 0;
}

static int increment(struct worker *worker, const struct text *words, char reply[LONGEST_REPLY])
{
    int found = bind(worker->get, 1, words[1]) ? sqlite3_step(worker->get) : SQLITE_ERROR;
    int64_t number = 0;
    int is_number = 1;
    if (found == SQLITE_ROW) {
        struct text before = {.bytes = sqlite3_column_blob(worker->get, 0)};
        before.length = (size_t)sqlite3_column_bytes(worker->get, 0);
        is_number = read_integer(before, &number);
    }
    sqlite3_reset(worker->get);
    if (found != SQLITE_ROW && found != SQLITE_DONE)
        return 0;
    if (!is_number || number == INT64_MAX) {
        strcpy(reply, "-ERR value is not an integer or out of range\r\n");
        return 1;
    }
    char sum[24];
    struct text value = {sum, (size_t)snprintf(sum, sizeof sum, "%" PRId64, number + 1)};
    snprintf(reply, LONGEST_REPLY, ":%s\r\n", sum);
    return bind(worker->set, 1, words[1]) && bind(worker->set, 2, value) && run(worker->set);
}

/* Looks for the reply that an earlier attempt of this message has kept. Returns whether the database has answered. */
static int find_reply(struct worker *worker, tine_conn conn, uint64_t message, char reply[LONGEST_REPLY])
{
    uint8_t attempt = 0;
    reply[0] = '\0';
    if (tine_conn_attempt(conn, &attempt) != TINE_OK || attempt == 0)
        return 1;
    sqlite3_bind_int64(worker->known, 1, (sqlite3_int64)conn.id);
    sqlite3_bind_int64(worker->known, 2, (sqlite3_int64)message);
    int found = sqlite3_step(worker->known);
    if (found == SQLITE_ROW)
        snprintf(reply, LONGEST_REPLY, "%s", (const char *)sqlite3_column_text(worker->known, 0));
    sqlite3_reset(worker->known);
    return found == SQLITE_ROW || found == SQLITE_DONE;
}

static int keep_reply(struct worker *worker, tine_conn conn, uint64_t message, const char *reply)
{
    sqlite3_bind_int64(worker->keep, 1, (sqlite3_int64)conn.id);
    sqlite3_bind_int64(worker->keep, 2, (sqlite3_int64)message);
    sqlite3_bind_text(worker->keep, 3, reply, -1, SQLITE_STATIC);
    return run(worker->keep);
}

/* Writes and replies: once, whichever attempt this is. */
static tine_status once(tine_conn conn, struct worker *worker, write_fn write, const struct text *words)
{
    char reply[LONGEST_REPLY];
    uint64_t message = 0;
    tine_status status = tine_conn_message_number(conn, &message);
    if (status != TINE_OK)
        return status;
    int done = run(worker->begin) && find_reply(worker, conn, message, reply);
    if (done && reply[0] == '\0')
        done = write(worker, words, reply) && keep_reply(worker, conn, message, reply);
    if (done && run(worker->commit)) {
        uint8_t attempt = 0;
        if (dies_after_commit && tine_conn_attempt(conn, &attempt) == TINE_OK && attempt == 0)
            abort();
        return say(conn, reply);
    }
    tine_log(TINE_LOG_ERROR, sqlite3_errmsg(worker->db));
    if (!sqlite3_get_autocommit(worker->db))
        run(worker->rollback);
    return say(conn, "-ERR the database failed\r\n");
}

static tine_status say_bulk(tine_conn conn, struct text text)
{
    char head[32];
    snprintf(head, sizeof head, "$%zu\r\n", text.length);
    tine_status status = say(conn, head);
    if (status == TINE_OK && text.length > 0)
        status = tine_conn_send(conn, text.bytes, text.length);
    return status == TINE_OK ? say(conn, "\r\n") : status;
}

static tine_status get(tine_conn conn, struct worker *worker, struct text key, int is_asked_for)
{
    tine_status status;
    int found = bind(worker->get, 1, key) ? sqlite3_step(worker->get) : SQLITE_ERROR;
    if (found != SQLITE_ROW && found != SQLITE_DONE) {
        tine_log(TINE_LOG_ERROR, sqlite3_errmsg(worker->db));
        status = say(conn, "-ERR the database failed\r\n");
    } else if (!is_asked_for) {
        status = say(conn, found == SQLITE_ROW ? ":1\r\n" : ":0\r\n");
    } else if (found == SQLITE_ROW) {
        struct text value = {.bytes = sqlite3_column_blob(worker->get, 0)};
        value.length = (size_t)sqlite3_column_bytes(worker->get, 0);
        status = say_bulk(conn, value);
    } else {
        status = say(conn, "$-1\r\n");
    }
    sqlite3_reset(worker->get); /* also ends the read transaction, which would block checkpoints */
    return status;
}

static int is(const struct text *words, int count, const char *name, int wanted)
{
    return (count == wanted || wanted == 0) && words[0].length == strlen(name) &&
           strncasecmp(words[0].bytes, name, words[0].length) == 0;
}

/* Runs in a worker, for each command. */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    struct worker *worker = state;
    struct text words[MOST_WORDS];
    int count = split(message, length, words);
    if (count == 0)
        return TINE_OK;
    if (count < 0) {
        tine_status status = say(conn, "-ERR Protocol error\r\n");
        return status == TINE_OK ? tine_conn_close(conn) : status;
    }
    if (is(words, count, "GET", 2) || is(words, count, "EXISTS", 2))
        return get(conn, worker, words[1], is(words, count, "GET", 2));
    if (is(words, count, "SET", 3))
        return once(conn, worker, set, words);
    if (is(words, count, "DEL", 2))
        return once(conn, worker, delete, words);
    if (is(words, count, "INCR", 2))
        return once(conn, worker, increment, words);
    if (is(words, count, "PING", 1))
        return say(conn, "+PONG\r\n");
    if (is(words, count, "ECHO", 2))
        return say_bulk(conn, words[1]);
    if (is(words, count, "CONFIG", 3)) { /* redis-benchmark asks for it */
        tine_status status = say(conn, "*2\r\n");
        status = status == TINE_OK ? say_bulk(conn, words[2]) : status;
        return status == TINE_OK ? say(conn, "$0\r\n\r\n") : status;
    }
    if (is(words, count, "COMMAND", 0)) /* redis-cli does */
        return say(conn, "*0\r\n");
    if (is(words, count, "QUIT", 1)) {
        tine_status status = say(conn, "+OK\r\n");
        return status == TINE_OK ? tine_conn_close(conn) : status;
    }
    return say(conn, "-ERR unknown command, or a wrong number of arguments\r\n");
}

/* Runs in a worker, once for each connection: nobody asks for its last reply any more. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    struct worker *worker = state;
    if (closed->reason == TINE_CLOSE_REFUSED)
        say(conn, "-ERR Protocol error\r\n");
    sqlite3_bind_int64(worker->forget, 1, (sqlite3_int64)conn.id);
    return run(worker->forget) ? TINE_OK : TINE_ERROR_FAILED;
}

static int open_database(sqlite3 **db)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX; /* one thread uses it */
    /* NORMAL: what is committed survives the process without an fdatasync(2) for each command. */
    return sqlite3_open_v2(path, db, flags, NULL) == SQLITE_OK &&
           sqlite3_busy_timeout(*db, BUSY_MILLISECONDS) == SQLITE_OK &&
           sqlite3_exec(*db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL) == SQLITE_OK;
}

static int prepare(struct worker *worker)
{
    const struct {
        const char *sql;
        sqlite3_stmt **statement;
    } all[] = {
        {"BEGIN IMMEDIATE", &worker->begin},
        {"COMMIT", &worker->commit},
        {"ROLLBACK", &worker->rollback},
        {"SELECT value FROM pairs WHERE key = ?1", &worker->get},
        {"INSERT OR REPLACE INTO pairs VALUES (?1, ?2)", &worker->set},
        {"DELETE FROM pairs WHERE key = ?1", &worker->delete},
        {"SELECT reply FROM replies WHERE conn = ?1 AND message = ?2", &worker->known},
        {"INSERT OR REPLACE INTO replies VALUES (?1, ?2, ?3)", &worker->keep},
        {"DELETE FROM replies WHERE conn = ?1", &worker->forget},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (sqlite3_prepare_v2(worker->db, all[i].sql, -1, all[i].statement, NULL) != SQLITE_OK)
            return 0;
    return 1;
}

/* Runs in a worker that leaves as asked. After a kill, SQLite recovers by itself. */
static void on_worker_stop(void *state)
{
    struct worker *worker = state;
    sqlite3_stmt *statement;
    while ((statement = sqlite3_next_stmt(worker->db, NULL)))
        sqlite3_finalize(statement);
    sqlite3_close(worker->db);
    free(worker);
}

/* Runs in each worker, before its first client. A handle must not be carried across a fork:
 * https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_
 */
static tine_status on_worker_start(const tine_worker *about, void **state)
{
    (void)about;
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return TINE_ERROR_FAILED;
    if (!open_database(&worker->db) || !prepare(worker)) {
        tine_log(TINE_LOG_ERROR, sqlite3_errmsg(worker->db));
        on_worker_stop(worker);
        return TINE_ERROR_FAILED;
    }
    *state = worker;
    return TINE_OK;
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("resp: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

/* Called before the fork of the workers, and closed again. Ids of connections are of one run of the server: replies of
 * the last one are nobody's.
 */
static int make_database(void)
{
    static const char sql[] =
        "PRAGMA journal_mode = WAL;"
        "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS replies (conn INTEGER PRIMARY KEY, message INTEGER, reply TEXT);"
        "DELETE FROM replies";
    sqlite3 *db = NULL;
    int made = open_database(&db) && sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
    if (!made)
        fprintf(stderr, "resp: %s: %s\n", path, sqlite3_errmsg(db));
    sqlite3_close(db);
    return made;
}

int main(int argc, char **argv)
{
    if (argc > 2)
        path = argv[2];
    dies_after_commit = argc > 3 && strcmp(argv[3], "--die-after-commit") == 0;
    if (!make_database())
        return 1;
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:6399");
    tine_listener_set_framing_fn(listener, find_end, NULL);
    tine_listener_set_max_message(listener, LONGEST);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 2);
    tine_server_set_dispatch(server, TINE_DISPATCH_LEAST_BUSY);
    tine_server_set_crash_redeliver(server, 10);
    tine_server_on_worker_start(server, on_worker_start);
    tine_server_on_receive(server, on_receive);
    tine_server_on_close(server, on_close);
    tine_server_on_worker_stop(server, on_worker_stop);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "resp: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
