/* A job queue for clients of beanstalkd, with its jobs in an SQLite database. It shows answers that come later.
 *
 *     job_queue [ADDRESS:PORT [DATABASE]]        default 127.0.0.1:11300, jobs.db
 *
 *     put PRIORITY DELAY TIME-TO-RUN BYTES, reserve, reserve-with-timeout SECONDS, delete JOB,
 *     release JOB PRIORITY DELAY, touch JOB, quit
 *
 * Of https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt tubes, buried jobs and statistics are left
 * out, a `reserve` waits for 50 minutes at most, and a job that is too long ends its connection.
 *
 * A `reserve` that finds no job is answered by a later callback: of a post, when there may be a job, or of a timer,
 * when its time is over. Which one it is, is decided in the database: what answers a message is kept in the transaction
 * of its effect, with the number of the callback that has done it. So a second attempt of a callback, after its worker
 * has died, sends what the first one would have sent, and all other callbacks send nothing. Link with -lsqlite3.
 */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tine.h>

enum { LONGEST_JOB = 65535, LONGEST_LINE = 224, BUSY_MILLISECONDS = 10 * 1000, TICK_MILLISECONDS = 100 };
enum { LONGEST_WAIT = 3000, PROMISE = 3600 /* seconds: the longest that there can be */ };

/* The numbers of callbacks that answer: those of posts that say that there may be a job are chosen at random. */
enum { BY_COMMAND, BY_WAIT, BY_TIMEOUT };

static const char *path = "jobs.db"; /* each process has a copy */

/* A message that is to be answered, and the callback that does it: also what is posted. */
struct asked {
    tine_conn conn;
    uint64_t message;
    int64_t by;
};

struct worker;
struct command;

/* What is done for a message. It may set an answer, and returns whether the database has done it. */
typedef int (*act_fn)(struct worker *worker, struct asked asked, const struct command *command);

struct command {
    act_fn act;          /* NULL for `quit` */
    uint64_t numbers[4]; /* of a `reserve` the seconds for which it waits */
    const char *body;
    size_t length; /* of the body */
};

struct worker {
    sqlite3 *db;
    sqlite3_stmt *known, *keep, *put, *first, *reserve, *delete, *release, *touch, *wait,
        *waits, *first_waiter, *forget, *due, *end_jobs, *end_answers;
    char answer[LONGEST_JOB + 64];
    size_t length; /* of the answer; 0 is none */
};

/* Milliseconds: the jobs may outlive this run of the machine. */
static int64_t now(void)
{
    struct timespec time;
    timespec_get(&time, TIME_UTC);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Binds numbers to ?1, ?2, …, and makes the first step. */
static int step(sqlite3_stmt *statement, int count, const int64_t *numbers)
{
    for (int i = 0; i < count; i++)
        sqlite3_bind_int64(statement, i + 1, numbers[i]);
    return sqlite3_step(statement);
}

#define STEP(statement, ...) \
    step(statement, sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

static int is_run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* Ends a statement without rows. */
static int is_done(sqlite3_stmt *statement, int outcome)
{
    sqlite3_reset(statement);
    return outcome == SQLITE_DONE;
}

#define RUN(statement, ...) is_done(statement, STEP(statement, __VA_ARGS__))

static int set_answer(struct worker *worker, const char *text)
{
    worker->length = (size_t)snprintf(worker->answer, sizeof worker->answer, "%s", text);
    return 1;
}

/* Reserves the first job for a connection. Without one, there is no answer. */
static int reserve_job(struct worker *worker, struct asked asked)
{
    int found = sqlite3_step(worker->first), done = found == SQLITE_DONE;
    if (found == SQLITE_ROW) {
        int64_t job = sqlite3_column_int64(worker->first, 0);
        int length = sqlite3_column_bytes(worker->first, 1);
        int head = snprintf(worker->answer, 64, "RESERVED %" PRId64 " %d\r\n", job, length);
        if (length > 0)
            memcpy(worker->answer + head, sqlite3_column_blob(worker->first, 1), (size_t)length);
        memcpy(worker->answer + head + length, "\r\n", 2);
        worker->length = (size_t)(head + length) + 2;
        done = RUN(worker->reserve, job, (int64_t)asked.conn.id, now());
    }
    sqlite3_reset(worker->first);
    return done;
}

static int put(struct worker *worker, struct asked asked, const struct command *command)
{
    (void)asked;
    const uint64_t *terms = command->numbers; /* priority, delay, time to run */
    sqlite3_bind_blob(worker->put, 5, command->body, (int)command->length, SQLITE_STATIC);
    int64_t until = now() + 1000 * (int64_t)terms[1];
    if (!RUN(worker->put, (int64_t)terms[0], terms[1] > 0, until, terms[2] > 0 ? (int64_t)terms[2] : 1))
        return 0;
    int64_t job = sqlite3_last_insert_rowid(worker->db);
    worker->length = (size_t)snprintf(worker->answer, 64, "INSERTED %" PRId64 "\r\n", job);
    return 1;
}

static int reserve(struct worker *worker, struct asked asked, const struct command *command)
{
    int done = reserve_job(worker, asked);
    if (done && worker->length == 0 && command->numbers[0] == 0)
        set_answer(worker, "TIMED_OUT\r\n");
    return done;
}

/* The answer to a command for one job. */
static int set_outcome(struct worker *worker, int done, const char *word)
{
    return set_answer(worker, sqlite3_changes(worker->db) > 0 ? word : "NOT_FOUND\r\n") && done;
}

static int delete(struct worker *worker, struct asked asked, const struct command *command)
{
    int done = RUN(worker->delete, (int64_t)command->numbers[0], (int64_t)asked.conn.id);
    return set_outcome(worker, done, "DELETED\r\n");
}

static int release(struct worker *worker, struct asked asked, const struct command *command)
{
    const uint64_t *terms = command->numbers; /* job, priority, delay */
    int64_t id = (int64_t)asked.conn.id, until = now() + 1000 * (int64_t)terms[2];
    int done = RUN(worker->release, (int64_t)terms[0], id, (int64_t)terms[1], terms[2] > 0, until);
    return set_outcome(worker, done, "RELEASED\r\n");
}

static int touch(struct worker *worker, struct asked asked, const struct command *command)
{
    int done = RUN(worker->touch, (int64_t)command->numbers[0], (int64_t)asked.conn.id, now());
    return set_outcome(worker, done, "TOUCHED\r\n");
}

/* A `reserve` begins to wait, unless there is a job by now. */
static int wait(struct worker *worker, struct asked asked, const struct command *command)
{
    (void)command;
    int64_t conn = (int64_t)asked.conn.id;
    return reserve_job(worker, asked) &&
           (worker->length > 0 || (RUN(worker->forget, conn) && RUN(worker->wait, conn, (int64_t)asked.message)));
}

/* Gives a job to a `reserve`, if it still waits. */
static int serve(struct worker *worker, struct asked asked, const struct command *command)
{
    (void)command;
    int waits = STEP(worker->waits, (int64_t)asked.conn.id, (int64_t)asked.message);
    if (is_done(worker->waits, waits))
        return 1;
    return waits == SQLITE_ROW && reserve_job(worker, asked) &&
           (worker->length == 0 || RUN(worker->forget, (int64_t)asked.conn.id));
}

static int time_out(struct worker *worker, struct asked asked, const struct command *command)
{
    (void)command;
    return set_answer(worker, "TIMED_OUT\r\n") && RUN(worker->forget, (int64_t)asked.conn.id);
}

/* Reads the line of a command. Returns whether it is one; otherwise the answer is in `wrong`. */
static int parse(const char *line, size_t length, struct command *command, const char **wrong)
{
    static const struct {
        const char *name;
        int numbers;
        act_fn act;
    } all[] = {
        {"put", 4, put},         {"reserve", 0, reserve}, {"reserve-with-timeout", 1, reserve}, {"delete", 1, delete},
        {"release", 3, release}, {"touch", 1, touch},     {"quit", 0, NULL},
    };
    char text[LONGEST_LINE + 1], *rest;
    snprintf(text, sizeof text, "%.*s", (int)length, line);
    size_t word = strcspn(text, " "), i = 0;
    while (i < sizeof all / sizeof *all && (strlen(all[i].name) != word || memcmp(all[i].name, text, word) != 0))
        i++;
    *wrong = "UNKNOWN_COMMAND\r\n";
    if (i == sizeof all / sizeof *all)
        return 0;
    *command = (struct command){.act = all[i].act, .numbers[0] = LONGEST_WAIT};
    *wrong = "BAD_FORMAT\r\n";
    rest = text + word;
    for (int number = 0; number < all[i].numbers; number++) {
        if (rest[0] != ' ' || rest[1] < '0' || rest[1] > '9')
            return 0;
        command->numbers[number] = strtoull(rest + 1, &rest, 10);
        if (command->numbers[number] > UINT32_MAX)
            return 0;
    }
    return *rest == '\0';
}

/* Finds the end of a command; runs in the master. */
static ptrdiff_t find_end(const void *data, size_t length, size_t seen, uint64_t *cursor, void *userdata)
{
    (void)cursor, (void)userdata;
    const char *bytes = data, *wrong, *end = bytes + seen;
    while ((end = memchr(end, '\n', (size_t)(bytes + length - end))) && (end == bytes || end[-1] != '\r'))
        end++;
    struct command command;
    if (!end || end - bytes > LONGEST_LINE)
        return length > LONGEST_LINE ? -1 : 0;
    size_t line = (size_t)(end - bytes) + 1;
    if (parse(bytes, line - 2, &command, &wrong) && command.act == put)
        line += command.numbers[3] + 2;
    return (ptrdiff_t)line;
}

/* Looks for the answer of a message. Returns 1 if there is none, 0 if there is, and -1 if the database fails. */
static int look_for_answer(struct worker *worker, struct asked asked)
{
    int found = STEP(worker->known, (int64_t)asked.conn.id), outcome = found == SQLITE_DONE ? 1 : -1;
    if (found == SQLITE_ROW) {
        int64_t last = sqlite3_column_int64(worker->known, 0);
        outcome = last < (int64_t)asked.message;
        /* If an earlier attempt of this callback has given it, its worker died before the answer left. */
        if (last == (int64_t)asked.message && sqlite3_column_int64(worker->known, 1) == asked.by) {
            worker->length = (size_t)sqlite3_column_bytes(worker->known, 2);
            memcpy(worker->answer, sqlite3_column_blob(worker->known, 2), worker->length);
        }
    }
    sqlite3_reset(worker->known);
    return outcome;
}

/* Acts, and sends the answer if there is one: once, whichever attempt of the callback this is. */
static tine_status once(struct worker *worker, struct asked asked, act_fn act, const struct command *command)
{
    worker->length = 0;
    int is_new = is_run(worker->db, "BEGIN IMMEDIATE") ? look_for_answer(worker, asked) : -1, done = is_new >= 0;
    if (is_new > 0) {
        done = act(worker, asked, command);
        if (done && worker->length > 0) {
            sqlite3_bind_blob(worker->keep, 4, worker->answer, (int)worker->length, SQLITE_STATIC);
            done = RUN(worker->keep, (int64_t)asked.conn.id, (int64_t)asked.message, asked.by);
        }
    }
    if (!done || !is_run(worker->db, "COMMIT")) {
        tine_log(TINE_LOG_ERROR, sqlite3_errmsg(worker->db));
        is_run(worker->db, "ROLLBACK"); /* fails if there is nothing to roll back */
        return TINE_ERROR_FAILED; /* the crash policy decides: it runs again */
    }
    return worker->length > 0 ? tine_conn_send(asked.conn, worker->answer, worker->length) : TINE_OK;
}

/* Has a job given to the first one that waits, if there are both. It may be asked for more often than needed. */
static tine_status wake(struct worker *worker)
{
    tine_status status = TINE_OK;
    if (sqlite3_step(worker->first_waiter) == SQLITE_ROW) {
        struct asked asked = {.conn.id = (uint64_t)sqlite3_column_int64(worker->first_waiter, 0),
                              .message = (uint64_t)sqlite3_column_int64(worker->first_waiter, 1),
                              .by = sqlite3_column_int64(worker->first_waiter, 2)};
        status = tine_post_to_least_busy(&asked, sizeof asked);
    }
    sqlite3_reset(worker->first_waiter);
    return status;
}

static tine_status on_reserve(struct worker *worker, struct asked asked, const struct command *command)
{
    tine_status status = once(worker, asked, reserve, command);
    if (status != TINE_OK || worker->length > 0)
        return status;
    uint64_t last, seconds = command->numbers[0] < LONGEST_WAIT ? command->numbers[0] : LONGEST_WAIT;
    const void *state;
    size_t length;
    status = tine_conn_answer_within(asked.conn, 1000 * PROMISE, "TIMED_OUT\r\n", 11);
    /* The timer of an earlier one, which was answered by a job. */
    if (status == TINE_OK && tine_conn_state(asked.conn, &state, &length) == TINE_OK && length == sizeof last) {
        memcpy(&last, state, length);
        status = tine_conn_cancel(asked.conn, last);
    }
    if (status == TINE_OK)
        status = tine_conn_after(asked.conn, 1000 * seconds, asked.message);
    if (status == TINE_OK)
        status = tine_conn_set_state(asked.conn, &asked.message, sizeof asked.message);
    /* It waits from the next callback on: an answer that came before this promise would not keep it. */
    asked.by = BY_WAIT;
    return status == TINE_OK ? tine_post_to_least_busy(&asked, sizeof asked) : status;
}

/* Runs in a worker, for each command. */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    struct worker *worker = state;
    struct command command;
    struct asked asked = {.conn = conn, .by = BY_COMMAND};
    (void)length; /* find_end() has seen the end of the line */
    const char *wrong, *end = message;
    while (end[0] != '\r' || end[1] != '\n')
        end++;
    tine_status status = tine_conn_message_number(conn, &asked.message);
    if (status != TINE_OK)
        return status;
    if (!parse(message, (size_t)(end - (const char *)message), &command, &wrong))
        return tine_conn_send(conn, wrong, strlen(wrong));
    if (command.act == reserve)
        return on_reserve(worker, asked, &command);
    if (!command.act)
        return tine_conn_close(conn);
    if (command.act == put) {
        command.body = end + 2;
        command.length = command.numbers[3];
        if (memcmp(command.body + command.length, "\r\n", 2) != 0)
            return tine_conn_send(conn, "EXPECTED_CRLF\r\n", 15);
    }
    status = once(worker, asked, command.act, &command);
    return status == TINE_OK ? wake(worker) : status;
}

/* A `reserve` is to wait, or there may be a job for one that does. */
static tine_status on_post(const void *bytes, size_t length, void *state)
{
    struct asked asked;
    if (length != sizeof asked)
        return TINE_ERROR_INVALID;
    memcpy(&asked, bytes, length);
    tine_status status = once(state, asked, asked.by == BY_WAIT ? wait : serve, NULL);
    return status == TINE_OK ? wake(state) : status;
}

/* The time of a `reserve` is over. */
static tine_status on_timer(tine_conn conn, uint64_t tag, void *state)
{
    return once(state, (struct asked){conn, tag, BY_TIMEOUT}, time_out, NULL);
}

/* Jobs are ready whose delay has passed, or whose time to run. */
static tine_status on_tick(uint64_t tag, void *state)
{
    (void)tag;
    struct worker *worker = state;
    return RUN(worker->due, now()) ? wake(worker) : TINE_ERROR_FAILED;
}

/* The jobs of a connection that has ended are ready again. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    (void)closed;
    struct worker *worker = state;
    int64_t id = (int64_t)conn.id;
    int done = RUN(worker->end_jobs, id) && RUN(worker->forget, id) && RUN(worker->end_answers, id);
    return done ? wake(worker) : TINE_ERROR_FAILED;
}

static int open_database(sqlite3 **db)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX; /* one thread uses it */
    /* NORMAL: what is committed survives the process without a sync(2) for each command. */
    return sqlite3_open_v2(path, db, flags, NULL) == SQLITE_OK &&
           sqlite3_busy_timeout(*db, BUSY_MILLISECONDS) == SQLITE_OK &&
           is_run(*db, "PRAGMA synchronous = NORMAL");
}

static int prepare(struct worker *worker)
{
    const struct {
        const char *sql;
        sqlite3_stmt **statement;
    } all[] = {
        {"SELECT message, by, bytes FROM answers WHERE conn = ?1", &worker->known},
        {"INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4)", &worker->keep},
        {"INSERT INTO jobs (priority, due, time_to_run, body) VALUES (?1, CASE WHEN ?2 THEN ?3 END, ?4, ?5)",
         &worker->put},
        {"SELECT id, body FROM jobs WHERE due IS NULL ORDER BY priority, id LIMIT 1", &worker->first},
        {"UPDATE jobs SET owner = ?2, due = ?3 + 1000 * time_to_run WHERE id = ?1", &worker->reserve},
        {"DELETE FROM jobs WHERE id = ?1 AND (owner IS NULL OR owner = ?2)", &worker->delete},
        {"UPDATE jobs SET owner = NULL, priority = ?3, due = CASE WHEN ?4 THEN ?5 END WHERE id = ?1 AND owner = ?2",
         &worker->release},
        {"UPDATE jobs SET due = ?3 + 1000 * time_to_run WHERE id = ?1 AND owner = ?2", &worker->touch},
        {"INSERT INTO waiters (conn, message) VALUES (?1, ?2)", &worker->wait},
        {"SELECT 1 FROM waiters WHERE conn = ?1 AND message = ?2", &worker->waits},
        {"SELECT conn, message, random() FROM waiters WHERE EXISTS (SELECT 1 FROM jobs WHERE due IS NULL)"
         " ORDER BY turn LIMIT 1",
         &worker->first_waiter},
        {"DELETE FROM waiters WHERE conn = ?1", &worker->forget},
        {"UPDATE jobs SET owner = NULL, due = NULL WHERE due <= ?1", &worker->due},
        {"UPDATE jobs SET owner = NULL, due = NULL WHERE owner = ?1", &worker->end_jobs},
        {"DELETE FROM answers WHERE conn = ?1", &worker->end_answers},
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

/* Runs in each worker, before its first client: a handle must not be carried across a fork. */
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

/* Runs in the master. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("job_queue: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

/* Called before the fork of the workers. Ids of connections are of one run of the server: nobody has reserved a job. */
static int make_database(void)
{
    static const char sql[] =
        "PRAGMA journal_mode = WAL;"
        "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, priority INTEGER, due INTEGER,"
        "    time_to_run INTEGER, owner INTEGER, body BLOB);"
        "CREATE INDEX IF NOT EXISTS by_turn ON jobs (due, priority, id);"
        "CREATE TABLE IF NOT EXISTS waiters (turn INTEGER PRIMARY KEY AUTOINCREMENT, conn INTEGER, message INTEGER);"
        "CREATE TABLE IF NOT EXISTS answers (conn INTEGER PRIMARY KEY, message INTEGER, by INTEGER, bytes BLOB);"
        "DELETE FROM waiters; DELETE FROM answers;"
        "UPDATE jobs SET owner = NULL, due = NULL WHERE owner IS NOT NULL";
    sqlite3 *db = NULL;
    int made = open_database(&db) && is_run(db, sql);
    if (!made)
        fprintf(stderr, "job_queue: %s: %s\n", path, sqlite3_errmsg(db));
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
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:11300");
    tine_listener_set_framing_fn(listener, find_end, NULL);
    tine_listener_set_max_message(listener, LONGEST_LINE + LONGEST_JOB + 4);
    tine_server_add_listener(server, listener);
    tine_server_set_dispatch(server, TINE_DISPATCH_LEAST_BUSY);
    tine_server_set_crash_redeliver(server, 10);
    tine_server_set_post_attempts(server, 10);
    tine_server_every(server, TICK_MILLISECONDS, 0, TINE_RUN_ONE);
    tine_server_on_worker_start(server, on_worker_start);
    tine_server_on_receive(server, on_receive);
    tine_server_on_post(server, on_post);
    tine_server_on_timer(server, on_timer);
    tine_server_on_server_timer(server, on_tick);
    tine_server_on_close(server, on_close);
    tine_server_on_worker_stop(server, on_worker_stop);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "job_queue: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
