/* Keys and values in an SQLite database, with calls that block: no code here is asynchronous.
 *
 *     blocking_sqlite [ADDRESS:PORT [DATABASE]]        default 127.0.0.1:9501, blocking_sqlite.db
 *
 *     set KEY VALUE        ok
 *     get KEY              value VALUE, or none
 *
 * While a worker waits for the disk, or for another writer, the clients of other workers are served, and new ones are
 * accepted. A pair that was answered with `ok` is in the database, even if the worker dies afterwards. If a worker dies
 * before its answer, another one runs the request again: a `set` may be done twice, with the same outcome as once.
 *
 * Link with -lsqlite3.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tine.h>

enum { LONGEST_LINE = 64 * 1024, BUSY_MILLISECONDS = 10 * 1000 };

/* The path of the database: each process has a copy. */
static const char *path = "blocking_sqlite.db";

struct worker {
    sqlite3 *db;
    sqlite3_stmt *set, *get;
};

/* A part of a line, without a NUL at its end. */
struct text {
    const char *bytes;
    size_t length;
};

static int is_command(struct text line, const char *command)
{
    size_t length = strlen(command);
    return line.length > length && memcmp(line.bytes, command, length) == 0;
}

static tine_status answer(tine_conn conn, const char *word, struct text value)
{
    tine_status status = tine_conn_send(conn, word, strlen(word));
    if (status == TINE_OK && value.length > 0)
        status = tine_conn_send(conn, value.bytes, value.length);
    return status == TINE_OK ? tine_conn_send(conn, "\n", 1) : status;
}

/* Reports an error of the database: its text to the log, the fact to the client. */
static tine_status failed(tine_conn conn, struct worker *worker)
{
    char text[256];
    snprintf(text, sizeof text, "database: %.200s", sqlite3_errmsg(worker->db));
    tine_log(TINE_LOG_ERROR, text);
    return answer(conn, "error database", (struct text){NULL, 0});
}

/* Values are bound, and never part of the SQL. They are BLOBs, which may have any bytes. SQLITE_STATIC: they are valid
 * until the statement is reset.
 */
static int bind_blob(sqlite3_stmt *statement, int position, struct text value)
{
    return sqlite3_bind_blob(statement, position, value.bytes, (int)value.length, SQLITE_STATIC);
}

static void reset(sqlite3_stmt *statement)
{
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

static tine_status set(tine_conn conn, struct worker *worker, struct text arguments)
{
    const char *space = memchr(arguments.bytes, ' ', arguments.length);
    if (!space)
        return answer(conn, "error set KEY VALUE", (struct text){NULL, 0});
    struct text key = {arguments.bytes, (size_t)(space - arguments.bytes)};
    struct text value = {space + 1, arguments.length - key.length - 1};
    int done = bind_blob(worker->set, 1, key) == SQLITE_OK && bind_blob(worker->set, 2, value) == SQLITE_OK &&
               sqlite3_step(worker->set) == SQLITE_DONE; /* commits */
    tine_status status = done ? answer(conn, "ok", (struct text){NULL, 0}) : failed(conn, worker);
    reset(worker->set);
    return status;
}

static tine_status get(tine_conn conn, struct worker *worker, struct text key)
{
    tine_status status;
    int found = bind_blob(worker->get, 1, key) == SQLITE_OK ? sqlite3_step(worker->get) : SQLITE_ERROR;
    if (found == SQLITE_ROW) {
        struct text value = {.bytes = sqlite3_column_blob(worker->get, 0)};
        value.length = (size_t)sqlite3_column_bytes(worker->get, 0);
        status = answer(conn, "value ", value);
    } else if (found == SQLITE_DONE) {
        status = answer(conn, "none", (struct text){NULL, 0});
    } else {
        status = failed(conn, worker);
    }
    reset(worker->get); /* also ends the read transaction, which would block checkpoints */
    return status;
}

/* Runs in a worker, for each line. */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    struct text line = {message, length - 1}; /* without its newline */
    if (is_command(line, "set "))
        return set(conn, state, (struct text){line.bytes + 4, line.length - 4});
    if (is_command(line, "get "))
        return get(conn, state, (struct text){line.bytes + 4, line.length - 4});
    return answer(conn, "error set KEY VALUE, or get KEY", (struct text){NULL, 0});
}

static int open_database(sqlite3 **db)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX; /* one thread uses it */
    if (sqlite3_open_v2(path, db, flags, NULL) == SQLITE_OK)
        return sqlite3_busy_timeout(*db, BUSY_MILLISECONDS) == SQLITE_OK;
    return 0;
}

static void close_database(struct worker *worker)
{
    sqlite3_finalize(worker->set);
    sqlite3_finalize(worker->get);
    sqlite3_close(worker->db);
    free(worker);
}

/* Runs in each worker, before its first client. A handle must not be carried across a fork:
 * https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_
 */
static tine_status on_worker_start(const tine_worker *about, void **state)
{
    (void)about;
    static const char set[] = "INSERT INTO pairs VALUES (?1, ?2)"
                              " ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    static const char get[] = "SELECT value FROM pairs WHERE key = ?1";
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return TINE_ERROR_FAILED;
    if (!open_database(&worker->db) || sqlite3_prepare_v2(worker->db, set, -1, &worker->set, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(worker->db, get, -1, &worker->get, NULL) != SQLITE_OK) {
        tine_log(TINE_LOG_ERROR, sqlite3_errmsg(worker->db));
        close_database(worker);
        return TINE_ERROR_FAILED;
    }
    *state = worker;
    return TINE_OK;
}

/* Runs in a worker that leaves as asked. After a kill, SQLite recovers by itself. */
static void on_worker_stop(void *state)
{
    close_database(state);
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("blocking_sqlite: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

/* Called before the fork of the workers, and closed again. In WAL mode readers and a writer do not wait for each other,
 * https://www.sqlite.org/wal.html; the file keeps that mode.
 */
static int make_database(void)
{
    static const char sql[] = "PRAGMA journal_mode = WAL;"
                              "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL)";
    sqlite3 *db = NULL;
    int made = open_database(&db) && sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
    if (!made)
        fprintf(stderr, "blocking_sqlite: %s: %s\n", path, sqlite3_errmsg(db));
    sqlite3_close(db);
    return made;
}

int main(int argc, char **argv)
{
    if (argc > 2)
        path = argv[2];
    if (!make_database())
        return 1;
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_listener_set_delimiter(listener, "\n", 1);
    tine_listener_set_max_message(listener, LONGEST_LINE);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 2);
    tine_server_set_crash_redeliver(server, 3);
    tine_server_on_worker_start(server, on_worker_start);
    tine_server_on_receive(server, on_receive);
    tine_server_on_worker_stop(server, on_worker_stop);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "blocking_sqlite: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
