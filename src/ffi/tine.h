// tine.h: a pre-fork reactor server for Linux. Your code may block, leak or crash without harm to the
// clients' connections.
//
//     static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *p)
//     {
//         return tine_conn_send(conn, message, length);
//     }
//
//     int main(void)
//     {
//         tine_server *server = tine_server_new();
//         tine_server_on_receive(server, on_receive);
//         tine_status status = tine_server_run(server);
//         if (status != TINE_OK)
//             fprintf(stderr, "%s\n", tine_last_error());
//         tine_server_free(server);
//         return status != TINE_OK;
//     }
//
//     cc echo.c $(pkg-config --cflags --libs tine)
//
// Processes. tine_server_run() forks. In process mode the calling process becomes the master, which
// owns every socket and has threads (reactors); its child, the manager, forks the workers and
// replaces those that exit. In base mode the calling process is the manager, and each worker owns its
// connections. Every type of a callback names the process that calls it:
//
//   worker    worker_start, worker_seated, connect, receive, close, paused, resumed,
//             idle, timer, drained, post, task, finished, server_timer, worker_stop: one at a time, in one thread. They may block, leak and crash. After
//             a crash (abort, a NULL write, exit) the worker's death is logged, another worker is
//             started, and the crash policy decides what the client sees of it.
//   master    dispatch and crash functions, by several threads at once; task_failed. In process mode also the
//             framing function, start and shutdown. A crash in them ends the server.
//   manager   manager_start, manager_stop, worker_exit; in base mode also start and shutdown. A
//             crash in them ends the server, a thread started in them keeps it from forking.
//   all       the log function, by any thread. A crash in it is a crash of the process that logs.
//
// Memory after a fork. Each worker has a copy of all memory as of its fork, before the first client.
// The target of a pointer such as `userdata` is a copy in every process, at the same address: no other
// process sees what one process writes there, and it is gone with the process. A worker that replaces
// another one starts with the copy from before the first client. Shared data belongs in a database, in
// a file, or in memory that was mapped with MAP_SHARED before tine_server_run(). Descriptors are
// inherited, and shared with their offsets: open files and connections to databases in worker_start,
// not before. The buffers of stdio are copied too: call fflush() before tine_server_run(), or each
// process may print their content again; and call it in callbacks that print, or the output is lost:
// workers and manager end by _exit(2).
//
// Rules. A pointer belongs to the side that has made it; data that is kept is copied, unless its
// function says otherwise. The pointers that a callback is given are valid until it returns, except its
// `state` or `userdata`, which is yours. Texts are UTF-8 and end with a NUL. A pointer with a length
// points to at least that many bytes. A handle is from tine_server_new() and not freed; a userdata
// lives until tine_server_run() has returned. If these rules are kept, no call crashes: a NULL or an
// argument out of range is refused with a status, and tine_last_error() has the details. Results are
// written only if TINE_OK is returned. The status of a setter need not be checked: tine_server_run()
// returns the first error of all setters, even if a later call has set a valid value. Numbers and times
// out of their range are found there too: it returns TINE_ERROR_SETTING. No time is longer than 366
// days.
//
// The end of a callback. A callback ends by returning. A C++ exception or pthread_exit(3) that leaves
// it ends the process as a crash does; a longjmp(3) out of it is not allowed. A process that it forks
// has no connections: it must end by execve(2) or _exit(2), and exits if it returns from the callback.
// In base mode it keeps the clients' sockets open until then.
//
// Made from src/ffi by `make header`: not to be edited.


#ifndef TINE_H
#define TINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The version of this header; tine_version() is that of the library which runs.
#define TINE_VERSION "0.2.0"
#define TINE_VERSION_MAJOR 0
#define TINE_VERSION_MINOR 2
#define TINE_VERSION_PATCH 0
// Grows with the version: a byte for each of its parts.
#define TINE_VERSION_NUMBER (TINE_VERSION_MAJOR << 16 | TINE_VERSION_MINOR << 8 | TINE_VERSION_PATCH)

// As in <sys/socket.h>, for programs that read them.
struct sockaddr;
struct sockaddr_storage;

// No deadline, for the setters of deadlines that name it.
#define TINE_NEVER UINT64_MAX

// The most bytes of a connection's state.
#define TINE_MOST_STATE 65536

// The most bytes of the reply to tine_conn_answer_within().
#define TINE_MOST_REPLY 4096

// For tine_server_post() and tine_poster_post(): every worker that has a seat.
#define TINE_SEAT_ALL -1

// For tine_server_post() and tine_poster_post(): any worker.
#define TINE_SEAT_ANY -2

// The most bytes of a post.
#define TINE_MOST_POST 65536

// The most bytes of a task, and of its result.
#define TINE_MOST_TASK 65536

// The most bytes of a group's name.
#define TINE_MOST_NAME 128

// The most groups of a connection.
#define TINE_MOST_GROUPS 128

// The most bytes that can be published at once.
#define TINE_MOST_PUBLISH 65536

// Bytes that are enough for any text of tine_address_text().
#define TINE_ADDRESS_TEXT 64

// The result of a call. The numbers never change; later versions may add new ones, so treat an unknown
// one as a failure. tine_strerror() returns the meaning of each in words, and tine_last_error() the
// details of a failure.
//
// Callbacks return one too: TINE_OK, or any other to report a failure. A failure is logged, none of the
// callback's output is sent, and the crash policy (tine_on_crash) decides the fate of its connection, as
// if the worker had died, though this worker lives on.
typedef enum {
  // Success.
  TINE_OK = 0,
  // For your callbacks to return: they could not do their work. tine_fail() sets the reason.
  TINE_ERROR_FAILED = 1,
  // A pointer is NULL that must not be. The call had no effect.
  TINE_ERROR_NULL = 2,
  // An argument is out of its range, or a text is not UTF-8. The call had no effect.
  TINE_ERROR_INVALID = 3,
  // The call can be made only once, and was: this server runs or has run, or this is a process of a
  // running server; or the log is set.
  TINE_ERROR_ALREADY = 4,
  // The call can be made only in a callback of a connection, by the thread that runs it.
  TINE_ERROR_OUTSIDE = 5,
  // The call can be made only for the callback's own connection.
  TINE_ERROR_OTHER_CONN = 6,
  // In base mode: the connection belongs to another worker, which cannot be reached.
  TINE_ERROR_OTHER_WORKER = 7,
  // The callback has sent more than tine_server_set_output_limit() allows.
  TINE_ERROR_OVER_LIMIT = 8,
  // The memory for a text is too small for it. The call has written nothing.
  TINE_ERROR_TOO_SMALL = 9,
  // A bug in the library: it panicked, and the panic was stopped at its boundary.
  TINE_ERROR_PANIC = 10,
  // The server does not run yet, or has ended.
  TINE_ERROR_NOT_RUNNING = 11,
  // The call can be made only in the process that handles the server's signals: the master, in base
  // mode the manager.
  TINE_ERROR_WRONG_PROCESS = 12,
  // The callback's own connection takes no more output: the callback has closed it, or is its close
  // callback for a reason that leaves nothing to send on (tine_close_reason).
  TINE_ERROR_CLOSED = 13,
  // The server keeps as many bytes of states, timers, promises, groups, posts and results as it may: half of
  // the memory budget. Or the connection is in TINE_MOST_GROUPS groups. Or as many posts of a poster wait as may.
  TINE_ERROR_FULL = 14,
  // As many tasks wait or run as may, or as many bytes of them: tine_server_set_task_queue().
  TINE_ERROR_QUEUE_FULL = 15,
  // The server has no task workers: tine_server_set_task_workers(). In base mode it can't have any.
  TINE_ERROR_NO_TASK_WORKERS = 16,
  // The master has not answered a question of the callback in time: it is busy, or was stopped.
  TINE_ERROR_NO_ANSWER = 17,
  // The server could not start: a setting has an invalid value.
  TINE_ERROR_SETTING = 32,
  // The server could not start: the process has more than one thread. A fork copies the calling
  // thread alone, and the locks that others hold are never released.
  TINE_ERROR_THREADS = 33,
  // The server could not start: it cannot listen on an address. tine_last_errno() has the cause.
  TINE_ERROR_LISTEN = 34,
  // The server could not start: the limit of open files (RLIMIT_NOFILE) is too low. Or tine_conn_send_file() was
  // refused: as many files are being sent as may be.
  TINE_ERROR_OPEN_FILES = 35,
  // The server could not start: the memory that the processes share could not be mapped.
  TINE_ERROR_SHARED_MEMORY = 36,
  // The server could not start: the pid file can't be written.
  TINE_ERROR_PID_FILE = 37,
  // The server could not start: a worker exited before it was ready.
  TINE_ERROR_WORKER_START = 38,
  // The server has ended: its workers kept dying. See tine_server_set_fail_on_crash_loop().
  TINE_ERROR_CRASH_LOOP = 39,
  // The server has ended: its manager process was killed, or exited unexpectedly.
  TINE_ERROR_MANAGER_EXITED = 40,
  // The server could not start, or has ended: a system call failed. tine_last_errno() has the cause.
  TINE_ERROR_SYSTEM = 41,
} tine_status;

// An event of a connection, each with a callback.
typedef enum {
  // tine_server_on_connect()
  TINE_EVENT_CONNECT = 0,
  // tine_server_on_receive()
  TINE_EVENT_RECEIVE = 1,
  // tine_server_on_close()
  TINE_EVENT_CLOSE = 2,
  // tine_server_on_paused()
  TINE_EVENT_PAUSED = 3,
  // tine_server_on_resumed()
  TINE_EVENT_RESUMED = 4,
  // tine_server_on_idle()
  TINE_EVENT_IDLE = 5,
  // tine_server_on_timer()
  TINE_EVENT_TIMER = 6,
  // tine_server_on_drained()
  TINE_EVENT_DRAINED = 7,
  // tine_server_on_post()
  TINE_EVENT_POST = 8,
  // tine_server_on_task()
  TINE_EVENT_TASK = 9,
  // tine_server_on_finished()
  TINE_EVENT_FINISHED = 10,
  // tine_server_on_server_timer()
  TINE_EVENT_SERVER_TIMER = 11,
} tine_event;

// Why a connection ended. Where the close callback can't send, tine_conn_send() returns TINE_ERROR_CLOSED.
typedef enum {
  // The peer sent FIN. The callback can send, until the close deadline.
  TINE_CLOSE_PEER = 0,
  // The connection broke: the peer sent RST, or the network gave up. The callback can't send.
  TINE_CLOSE_BROKEN = 1,
  // A callback closed or reset it, and sent its last bytes before. The close callback can't send.
  TINE_CLOSE_HANDLER = 2,
  // The server is shutting down. The callback can send, until the shutdown deadline.
  TINE_CLOSE_SHUTDOWN = 3,
  // The peer took its output too slowly, and was reset. The callback can't send.
  TINE_CLOSE_SLOW_READER = 4,
  // The protocol refused the peer's bytes. The messages before them are answered first; the callback can
  // send the last answer, which says what was refused.
  TINE_CLOSE_REFUSED = 5,
  // A worker died in one of its callbacks, or one of them failed. The callback can't send: the last answer is
  // that of the crash policy (tine_on_crash).
  TINE_CLOSE_CRASH = 6,
  // tine_listener_set_open_deadline(): neither side has said anything. The callback can't send.
  TINE_CLOSE_OPEN_DEADLINE = 7,
  // tine_listener_set_message_deadline(): a message was incomplete for too long. The messages before
  // it are answered first; the callback can send the last answer.
  TINE_CLOSE_MESSAGE_DEADLINE = 8,
  // tine_listener_set_idle(): the peer was silent, and nothing was due to it. The callback
  // can't send.
  TINE_CLOSE_IDLE_DEADLINE = 9,
  // tine_listener_set_write_deadline(): output was unsent, and the peer acknowledged
  // nothing. The callback can't send.
  TINE_CLOSE_WRITE_DEADLINE = 10,
  // tine_listener_set_queue_deadline(): no worker has begun a message of it. The callback
  // can't send: the last answer is that of the crash policy.
  TINE_CLOSE_QUEUE_DEADLINE = 11,
  // tine_conn_answer_within(): no callback has sent to it in time. The callback can't send: the last answer is the
  // reply that was named there.
  TINE_CLOSE_ANSWER_DEADLINE = 12,
  // tine_conn_send_file(): a file could not be read to the end of its part, since it has become shorter or its disk
  // failed. The connection was reset; the callback can't send.
  TINE_CLOSE_FILE_FAILED = 13,
} tine_close_reason;

// Where the connections live.
typedef enum {
  // A master owns every socket, and workers run the callbacks: connections outlive a worker that dies
  // or blocks. The default.
  TINE_MODE_PROCESS = 0,
  // Each worker accepts and serves its own connections: no process is between socket and callback,
  // and no connection outlives its worker.
  TINE_MODE_BASE = 1,
} tine_mode;

// The level of a log line.
typedef enum {
  // No line has this level: as a limit, it turns the log off.
  TINE_LOG_OFF = 0,
  // A failure.
  TINE_LOG_ERROR = 1,
  // An unusual event, such as the abnormal exit of a worker.
  TINE_LOG_WARN = 2,
  // A rare and normal event.
  TINE_LOG_INFO = 3,
  // Details for finding a fault.
  TINE_LOG_DEBUG = 4,
  // More details.
  TINE_LOG_TRACE = 5,
} tine_log_level;

// The byte order of a length.
typedef enum {
  // The most significant byte first: network byte order.
  TINE_BIG_ENDIAN = 0,
  // The least significant byte first.
  TINE_LITTLE_ENDIAN = 1,
} tine_byte_order;

// The bytes that a length counts.
typedef enum {
  // The bytes after it.
  TINE_COUNTS_BODY = 0,
  // The whole message, the length included.
  TINE_COUNTS_ALL = 1,
} tine_counts;

// Which worker a connection's messages go to, in process mode. In every mode the callbacks of one
// connection run in order, one at a time.
typedef enum {
  // The connection stays with the worker that had the fewest connections when it was accepted. The
  // default.
  TINE_DISPATCH_LEAST_CONNECTIONS = 0,
  // Each message goes to the worker with the fewest messages, and none waits behind a callback
  // that blocks. For callbacks that keep no state of a connection in the worker's memory.
  TINE_DISPATCH_LEAST_BUSY = 1,
  // The connection stays with a worker. At accept, the workers are taken in turn.
  TINE_DISPATCH_ROUND_ROBIN = 2,
  // Connections from one IP address go to one worker, and by a unix socket those of one user.
  TINE_DISPATCH_CLIENT_ADDRESS = 3,
  // Connections that tine_conn_set_user() has associated with one user id go to one worker.
  TINE_DISPATCH_USER_ID = 4,
} tine_dispatch;

// A fact about how a connection came.
typedef enum {
  // The version of TLS: "TLSv1.3" or "TLSv1.2".
  TINE_FACT_TLS_VERSION = 0,
  // The host name that the client has asked for (server name indication, RFC 6066).
  TINE_FACT_SERVER_NAME = 1,
  // The protocol that was agreed on (ALPN, RFC 7301), such as "h2".
  TINE_FACT_APPLICATION_PROTOCOL = 2,
  // The client's own certificate, X.509 in DER.
  TINE_FACT_CLIENT_CERTIFICATE = 3,
  // The address and port of the proxy, which has named its client by the PROXY protocol, as text.
  TINE_FACT_PROXY = 4,
  // The address and port that the client has connected to, as the proxy says, as text.
  TINE_FACT_DESTINATION = 5,
  // The host name that the client has asked the proxy for.
  TINE_FACT_AUTHORITY = 6,
  // The id that the proxy has given to the connection: up to 128 bytes.
  TINE_FACT_UNIQUE_ID = 7,
  // The version of TLS between the client and the proxy.
  TINE_FACT_PROXY_TLS_VERSION = 8,
  // The common name of the certificate that the client has shown to the proxy, which has verified it.
  TINE_FACT_PROXY_CLIENT_NAME = 9,
  // The protocol that the client and the proxy have agreed on (ALPN).
  TINE_FACT_PROXY_APPLICATION_PROTOCOL = 10,
} tine_fact;

// The action for a callback that runs longer than its limit.
typedef enum {
  // Log a warning with the worker's stack, once for each callback.
  TINE_LIMIT_WARN = 0,
  // Log it, and kill the worker; the crash policy decides the fate of the message.
  TINE_LIMIT_KILL = 1,
} tine_limit_action;

// The form of the lines of a log.
typedef enum {
  // For people: time, level, role, pid and message.
  TINE_LOG_TEXT = 0,
  // An object on one line, with time, level, role, pid and message.
  TINE_LOG_JSON = 1,
  // The same fields as name=value.
  TINE_LOG_LOGFMT = 2,
} tine_log_format;

// The fate of a callback in which a worker dies, in process mode, and of a callback that fails, in both
// modes. A `close` in which a worker has died is run once more, except under TINE_ON_CRASH_KEEP, and its
// socket is closed at once. In base mode a worker's connections end with it, and TINE_ON_CRASH_REDELIVER
// and TINE_ON_CRASH_KEEP are refused.
typedef enum {
  // The connection is closed, so that the client learns of it at once. The default.
  TINE_ON_CRASH_CLOSE = 0,
  // The callback is run again, after a death in another worker, until its attempts are used up.
  TINE_ON_CRASH_REDELIVER = 1,
  // A ready-made answer is sent, and the connection is closed.
  TINE_ON_CRASH_REPLY = 2,
  // The message is dropped: the client waits, and a connection that it closes stays in CLOSE_WAIT; for
  // comparison. After a callback that fails, the connection is still closed.
  TINE_ON_CRASH_KEEP = 3,
  // A ready-made answer is sent in the place of the answer to the message, and the connection stays. For a listener
  // with a protocol, since a raw one has no boundaries of messages. Of other callbacks it is TINE_ON_CRASH_REPLY.
  TINE_ON_CRASH_ANSWER = 4,
} tine_on_crash;

// The action at the idle deadline of a connection.
typedef enum {
  // The connection is closed with FIN, whatever the workers do. The default.
  TINE_IDLE_CLOSE = 0,
  // tine_server_on_idle() is called, each time that the deadline has passed.
  TINE_IDLE_CALL = 1,
} tine_on_idle;

// The workers that run the function for a timer of the server.
typedef enum {
  // One worker each time: the one with the fewest messages to handle, as far as the dispatch counts them.
  TINE_RUN_ONE = 0,
  // Each worker that has a seat, but for task workers.
  TINE_RUN_EACH = 1,
} tine_run;

// A listener before it is added to a server. One thread at a time may use it.
typedef struct tine_listener tine_listener;

// A way for any thread of a worker to post, so that work in the background, such as a pool of threads or the loop of
// an asynchronous client, leads to a callback: tine_server_on_post()'s function. All of one worker are the same.
typedef struct tine_poster tine_poster;

// A server before its start: its settings and its callbacks. One thread at a time may use it.
typedef struct tine_server tine_server;

// Finds the end of the first message in a connection's bytes. Returns the length of the message in
// bytes, framing included, even if not all of them have come yet; 0 if the length is not known before
// more bytes come; a negative number if these bytes can't begin a message, which closes the connection.
// `bytes` are all bytes that belong to no message yet, at least one, and may include bytes of the next
// messages; an earlier call has searched the first `seen` of them without finding a whole message. `cursor` is a number
// of the function's own, kept for the connection from call to call: where the next part of the message begins, for
// example, so that a long message in many parts is not walked from its first byte each time. It is 0 when `seen` is 0.
//
// Called where the socket is read. Process mode: in the master by any of its reactor threads: it must be
// thread-safe, should be quick and must not block, and a crash in it ends the server. Base mode: in the
// worker.
typedef ptrdiff_t (*tine_framing_fn)(const void *bytes,
                                     size_t length,
                                     size_t seen,
                                     uint64_t *cursor,
                                     void *userdata);

// The number of a listener of a server, from 0, in the order in which they were added.
typedef struct {
  // The number.
  uint32_t index;
} tine_listener_id;

// The id of one connection, valid in every process of the server for as long as it runs. It may be
// copied, kept, compared by its number, and passed to other processes. It is never reused: bytes sent
// to a connection that is gone reach no other one. The log prints it as OWNER:PLACE:GENERATION, which are the
// upper 10 bits of the number, the 22 below them, and its lower 32: the reactor that has the connection (in base
// mode the slot of the worker process that accepted it), the place in its table, and a count of its connections.
typedef struct {
  // Its number; never 0, so 0 can be used for no connection.
  uint64_t id;
} tine_conn;

// The argument of a dispatch function: the next callback of a connection. Valid until the function
// returns.
typedef struct {
  // The connection.
  tine_conn conn;
  // The client's address and port, or its credentials, as of tine_conn_peer().
  const struct sockaddr *peer;
  // The listener that accepted it.
  tine_listener_id listener;
  // The user id that tine_conn_set_user() has associated it with; NULL for none.
  const uint64_t *user;
  // The message, framing included; NULL for any other callback than `receive`.
  const void *message;
  // Bytes of the message.
  size_t length;
  // The seat of its last callback; before the first one, the seat with the fewest connections.
  size_t seat;
  // The number of seats: `worker#0` up to one less.
  size_t seats;
} tine_route;

// Returns the seat for a connection's next callback; a number past the last seat wraps around. Process
// mode only. Called in the master by any of its reactor threads: it must be thread-safe, should be
// quick and must not block. It is called again for a callback that has had to wait. A crash in it ends
// the server.
typedef size_t (*tine_dispatch_fn)(const tine_route *route, void *userdata);

// The argument of a crash function: a callback in which a worker died, or that failed. Valid until the
// function returns.
typedef struct {
  // The connection of the callback.
  tine_conn conn;
  // The client's address and port, or its credentials, as of tine_conn_peer().
  const struct sockaddr *peer;
  // The listener that accepted it.
  tine_listener_id listener;
  // The user id that tine_conn_set_user() has associated it with; NULL for none.
  const uint64_t *user;
  // The event of the callback.
  tine_event event;
  // The number of its runs, this one included.
  uint8_t attempts;
  // It returned another status than TINE_OK, and its worker lives.
  bool failed;
  // It had called tine_flush(): part of its output has left, and it can't be run again.
  bool flushed;
  // No worker has begun it in time, see tine_listener_set_queue_deadline(): after the reply, if the
  // function decides for one, its connection is closed.
  bool expired;
  // The message, for `receive`; NULL otherwise.
  const void *message;
  // Bytes of the message.
  size_t length;
} tine_crash;

// The decision of a crash function.
typedef struct {
  // TINE_ON_CRASH_CLOSE, unless the function changes it. An invalid value is logged, and the
  // connection closed.
  tine_on_crash on_crash;
  // With TINE_ON_CRASH_REDELIVER: the most runs of this callback, 1 to 255, the first run included. With 1 it is
  // not run again, unless it is a `close` in which a worker died; 0 and more than 255 are logged, and close the
  // connection. Initially 3.
  uint32_t attempts;
  // With TINE_ON_CRASH_REPLY and TINE_ON_CRASH_ANSWER: the bytes to send, at least one. They belong to the program, and are
  // copied when the function has returned.
  const void *reply;
  // Bytes of the reply.
  size_t reply_length;
} tine_fate;

// Decides the fate of a callback in which a worker died, or that failed, by writing to `fate`. Process
// mode only. Called in the master by any of its reactor threads: it must be thread-safe and must not
// block. A crash in it ends the server.
typedef void (*tine_crash_fn)(const tine_crash *crash, tine_fate *fate, void *userdata);

// A worker process.
typedef struct {
  // Its seat: the N of `worker#N`, from 0. The next process in the seat has the same. -1 for a
  // standby worker.
  int64_t seat;
  // The number of the worker process, from 1: no two have the same.
  uint32_t generation;
  // It runs tasks (tine_server_set_task_workers()) and serves no clients. False for a standby worker, which may get
  // either kind of seat.
  bool runs_tasks;
} tine_worker;

// Worker: it has started, and serves no client yet. `*state` is the pointer of
// tine_server_set_userdata(). The callback may replace it, with a database handle for example: the
// other callbacks of this worker are given the new pointer. See tine_server_on_worker_start().
typedef tine_status (*tine_worker_start_fn)(const tine_worker *worker, void **state);

// Worker: a standby worker takes a seat, before its first callback for a connection.
typedef tine_status (*tine_worker_seated_fn)(const tine_worker *worker, void *state);

// Worker: an event of a connection without further arguments.
typedef tine_status (*tine_conn_fn)(tine_conn conn, void *state);

// Worker: a message of `length` bytes has come, at least one, framing included. It belongs to the
// library and is valid until the callback returns.
typedef tine_status (*tine_receive_fn)(tine_conn conn,
                                       const void *message,
                                       size_t length,
                                       void *state);

// How a connection ended.
typedef struct {
  // Why it ended.
  tine_close_reason reason;
  // The bytes of output that were lost: the socket was closed, with RST, before the peer had
  // acknowledged them. 0 if they were lost only after this callback: then the log alone has the number.
  uint64_t lost;
  // The close deadline passed before a worker was free for this callback: the server has closed
  // the socket already.
  bool past_deadline;
  // This callback has run before: its worker died in it, or it failed.
  bool retried;
} tine_closed;

// Worker: a connection has ended.
typedef tine_status (*tine_close_fn)(tine_conn conn, const tine_closed *closed, void *state);

// Worker: the connection's timer with this tag has fired.
typedef tine_status (*tine_timer_fn)(tine_conn conn, uint64_t tag, void *state);

// Worker: a callback has posted `length` bytes to it. They belong to the library and are valid until the callback
// returns.
typedef tine_status (*tine_post_fn)(const void *bytes, size_t length, void *state);

// Worker: it leaves as asked, after its last callback for a connection.
typedef void (*tine_worker_stop_fn)(void *state);

// An address that a server listens on.
typedef struct {
  // The address, with the real port: "127.0.0.1:9501".
  const char *text;
  // The name of its listener.
  const char *name;
  // Its listener.
  tine_listener_id listener;
} tine_endpoint;

// A server that has started. Valid until the callback returns.
typedef struct {
  // Every address that it listens on, in the order in which the listeners were added.
  const tine_endpoint *addresses;
  // The number of addresses.
  size_t addresses_length;
  // Where the connections live.
  tine_mode mode;
  // The number of workers with seats.
  size_t workers;
  // The number of reactors; 0 in base mode.
  size_t reactors;
  // The process to send signals to: the master, in base mode the manager.
  int32_t pid;
  // The number of task workers. They have the seats after those of the workers for clients.
  size_t task_workers;
} tine_started;

// Master (base mode: manager): the server has started.
typedef void (*tine_start_fn)(const tine_started *started, void *userdata);

// Master or manager: an event without further arguments.
typedef void (*tine_server_fn)(void *userdata);

// How a worker ended.
typedef struct {
  // Its seat: the N of `worker#N`; -1 for a standby worker.
  int64_t seat;
  // The pid of the process.
  int32_t pid;
  // Its exit status; 0 if a signal ended it.
  int32_t status;
  // The signal that ended it, or 0.
  int32_t signal;
  // The exit is abnormal: the worker was not asked to leave, or did not leave in order.
  bool abnormal;
} tine_worker_exit;

// Manager: a worker has ended.
typedef void (*tine_worker_exit_fn)(const tine_worker_exit *exit, void *userdata);

// Counters of the running server.
typedef struct {
  // The seat of the calling worker: the N of `worker#N`.
  int64_t seat;
  // The number of the worker process, from 1: no two have the same.
  uint32_t generation;
  // Callbacks that this worker process has finished.
  uint64_t callbacks;
  // Connections open now: of the whole server in process mode, of this worker in base mode.
  uint64_t connections;
  // Connections accepted since the start, counted in the same way.
  uint64_t accepted;
  // Callbacks that have used up their attempts. 0 in base mode.
  uint64_t poisoned;
} tine_stats;

// How a task is handled. All zero is a task without any of it.
typedef struct {
  // The time that has to pass between the commit and the run of the task, in milliseconds.
  uint64_t delay;
  // It replaces a waiting task with the same `key`, which is then not run. A task that a worker was given already
  // is not replaced.
  bool has_key;
  // Any number.
  uint64_t key;
  // Its result is asked for: tine_server_on_finished()'s function is called with `tag`, in the worker that has this
  // worker's seat by then.
  bool has_tag;
  // Any number.
  uint64_t tag;
} tine_task_options;

// Worker: a task worker is given a task of `length` bytes. They belong to the library and are valid until the callback
// returns.
typedef tine_status (*tine_task_fn)(const void *bytes, size_t length, void *state);

// Worker: a task with this tag is done; its result has `length` bytes. They belong to the library and are valid until
// the callback returns.
typedef tine_status (*tine_finished_fn)(uint64_t tag, const void *result, size_t length, void *state);

// A task that was given up. Valid until the callback returns.
typedef struct {
  // Its bytes.
  const void *bytes;
  // Their number.
  size_t length;
  // Its sender waits for a result.
  bool has_tag;
  // The tag of the result, or 0.
  uint64_t tag;
  // It has a key.
  bool has_key;
  // The key, or 0.
  uint64_t key;
  // The seat of its sender.
  size_t seat;
  // The number of its runs.
  uint32_t attempts;
  // Its last run failed, and that worker lives.
  bool failed;
  // It had flushed part of its output: it can't be run again.
  bool flushed;
} tine_failed_task;

// Master, in its first reactor thread: a task was given up.
typedef void (*tine_task_failed_fn)(const tine_failed_task *failed, void *userdata);

// A connection at the moment at which tine_connections() has listed it.
typedef struct {
  // The connection.
  tine_conn conn;
  // The client's address and port, or its credentials, as of tine_conn_peer(): a struct sockaddr_storage, which this
  // header does not define.
  uint64_t peer[16];
  // The listener that has accepted it.
  tine_listener_id listener;
  // Whether callbacks have set a user id, and that id, or 0.
  bool has_user;
  uint64_t user;
  // Milliseconds since it was accepted; in base mode, since this worker has it.
  uint64_t age;
  // The bytes of output that its socket has not taken yet.
  uint64_t unsent;
} tine_conn_info;

// Worker: a timer of the server with this tag has fired.
typedef tine_status (*tine_server_timer_fn)(uint64_t tag, void *state);

// The process that has connected to a unix socket, as it was then, unix(7): SO_PEERCRED.
typedef struct {
  // Its process, 0 for one that the server's namespace of pids does not have; its user; its group.
  uint32_t pid;
  uint32_t uid;
  uint32_t gid;
} tine_credentials;

// A line of the log. Valid until the function returns.
typedef struct {
  // Its level.
  tine_log_level level;
  // The role of the process that logs: "master", "manager", "worker#0", "standby"; "tine" before the
  // server has started.
  const char *role;
  // The pid of that process.
  int32_t pid;
  // The text, without a newline at its end. It may have some inside.
  const char *text;
} tine_log_line;

// Takes a line of the log. Called in every process of the server, in the master by any of its threads:
// it must be thread-safe. It must not block: the reactor, the manager or the worker that logs waits for it,
// and with it the clients. Lines that it logs itself
// with tine_log() are dropped.
typedef void (*tine_log_fn)(const tine_log_line *line, void *userdata);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// ---- A server's life ----

// Makes a server with default settings: process mode, 127.0.0.1:9501, as many workers as the
// machine has cores, half as many reactors. It takes no resources of the system yet. Free it with
// tine_server_free(). Never NULL.
tine_server *tine_server_new(void);

// Frees a server, whether it has run or not; NULL is fine. Every `userdata` remains the program's to
// free. Must not be called while it runs.
void tine_server_free(tine_server *server);

// Adds a raw listener with the default limits, on an address: "127.0.0.1:9501", "[::1]:9501",
// "localhost:9501" (on every address of the name, looked up by tine_server_run()). "0.0.0.0:9501" is every
// IPv4 address of the machine, and "[::]:9501" every IPv6 address alone. With port 0 the kernel chooses a port, which is in
// tine_started. "unix:PATH" is as of tine_listener_unix(), and "fd:3", "systemd" and "systemd:NAME" as of
// tine_listener_inherited(). A server without a listener listens on 127.0.0.1:9501. The address is checked by
// tine_server_run(). tine_listener_tcp() makes a listener with its own protocol and limits.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_listen(tine_server *server,
                               const char *address);

// Runs the server until SIGTERM, SIGINT, tine_server_stop() or tine_stop() stops it, then returns; a
// server can be run once. It forks, and must be called while the process has one thread, and in no
// callback. The calling process becomes the master, in base mode the manager. The other processes exit
// inside this function, and never return from it.
//
// While it runs, signals of the calling process are the server's: TERM, INT and QUIT shut it down
// gracefully, a second INT by force if it comes half a second after the first or later, USR1 replaces the
// workers one at a time; HUP, USR2, PIPE and XFSZ have no effect. Handlers that the program has set for
// these and for CHLD are set aside, and not called; they are back when it returns. ALRM, VTALRM, PROF, POLL,
// STKFLT, PWR and real-time signals have no effect either, unless the program has a handler. In a worker they
// are as the program has set them.
//
// Errors: TINE_ERROR_NULL. TINE_ERROR_INVALID for a server without a `receive` callback. The first
// error that a setter has returned. TINE_ERROR_ALREADY, also in a callback. All from TINE_ERROR_SETTING
// on. In every case, no process is left running.
tine_status tine_server_run(tine_server *server);

// Shuts a running server down gracefully, as SIGTERM does. Returns at once. Master (base mode: manager):
// any thread, while tine_server_run() runs. In a callback of a connection, use tine_stop().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS.
tine_status tine_server_stop(const tine_server *server);

// Replaces the workers of a running server, one at a time, as SIGUSR1 does. Returns at once. Master
// (base mode: manager): any thread, while tine_server_run() runs. In a callback of a connection, use
// tine_reload().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS.
tine_status tine_server_reload(const tine_server *server);

// ---- Listeners, before tine_server_run() ----

// Makes a TCP listener: raw, with the default limits. `address` is as for tine_server_listen(). Pass
// it to tine_server_add_listener(), or free it with tine_listener_free(). Never NULL: an invalid
// address is refused by tine_server_add_listener().
tine_listener *tine_listener_tcp(const char *address);

// Frees a listener that was not added to a server; NULL is fine.
void tine_listener_free(tine_listener *listener);

// Adds a listener to a server, which owns it from here on, also after an error: it must not be used
// again.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY, and the first error that a setter of the listener has
// returned.
tine_status tine_server_add_listener(tine_server *server,
                                     tine_listener *listener);

// Sets the listener's name in logs, in tine_started and in tine_listener_name(). No two listeners of a
// server may have the same name. Default: its address.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_name(tine_listener *listener,
                                   const char *name);

// Sets the protocol, which cuts bytes into messages, by its text: "raw" (the bytes of one read; the
// default), "lines", "varint", "delimiter=TEXT" where TEXT may have \r \n \t \0 \\ and \xHH for single
// bytes, "length=WIDTH[,big|little][,body|all][,offset=N][,adjust=N]" with a WIDTH of 1 to 8 bytes. A message has its
// framing: its delimiter at the end, or its length at the beginning. Bytes that are no whole message when the peer
// closes, such as a last line without a line feed, are dropped, with no callback and no log line.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_protocol(tine_listener *listener,
                                       const char *protocol);

// A message ends with these bytes, 1 to 256 of them: "\r\n", for example. They are part of the message. Bytes after
// the last of them are dropped when the peer closes, with no callback and no log line. The delimiter is copied.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_delimiter(tine_listener *listener,
                                        const void *delimiter,
                                        size_t length);

// A message begins with its length, an unsigned number of `width` bytes: 1 to 8.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_length_prefix(tine_listener *listener,
                                            size_t width,
                                            tine_byte_order order,
                                            tine_counts counts);

// A function finds the end of a message. If a delimiter or a length prefix can express the same, it is
// the safer choice.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_framing_fn(tine_listener *listener,
                                         tine_framing_fn function,
                                         void *userdata);

// Sets the longest accepted message in bytes, framing included, 1 byte to 1 GiB. A raw message is also
// at most 256 KiB long, and shorter under a small output limit, so that it can be echoed. Default:
// 8 MiB. With any protocol but raw, each pair of a reactor and a worker has memory for at least one
// message of this length.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_max_message(tine_listener *listener,
                                          size_t bytes);

// Sets the most connections that wait in the kernel to be accepted, listen(2), 0 to INT_MAX. The
// kernel's maximum is net.core.somaxconn; the log warns if it is exceeded. Default: 4096.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_backlog(tine_listener *listener, uint32_t connections);

// Writes the name of a listener with its NUL: the name that was set, or its address. `text` has `size`
// bytes.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a listener that the server does not have,
// TINE_ERROR_TOO_SMALL, TINE_ERROR_OUTSIDE.
tine_status tine_listener_name(tine_listener_id listener,
                               char *text,
                               size_t size);

// Makes a listener on a unix socket: raw, with the default limits. `path` is a path, or "@" and an abstract name. A socket
// that is there is replaced if nobody answers on it; anything else is left, and tine_server_run() returns
// TINE_ERROR_LISTEN. The file is removed when the server ends in order. Its clients have credentials in the place of
// addresses: see tine_conn_peer(). Otherwise as tine_listener_tcp().
tine_listener *tine_listener_unix(const char *path);

// Makes a listener of sockets that the program which has started this one passes: "fd:3" for a descriptor, "systemd" for all that
// are passed by the variables of sd_listen_fds(3), or "systemd:NAME" for those with this name. They belong to the
// server from tine_server_run() on. Otherwise as tine_listener_tcp().
tine_listener *tine_listener_inherited(const char *which);

// Sets the permissions of a unix socket's file, as chmod(2) takes them: 0660. A client needs the right to write. Default:
// all, less the umask of the process.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_mode(tine_listener *listener,
                                   uint32_t mode);

// Sets the owner of a unix socket's file, before anybody can connect: "app", "app:www-data" or ":www-data", by names or
// numbers. Default: the user and the group of the process.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_owner(tine_listener *listener,
                                    const char *owner);

// Sets whether a listener on an IPv6 address takes clients of IPv6 alone, ipv6(7). With false, "[::]:9501" takes those of IPv4
// too, which have their IPv4 addresses. Default: true.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_v6only(tine_listener *listener,
                                     bool v6only);

// Accepts a TCP client when its first bytes have come, or after this many milliseconds, 1,000 to 3,600,000: TCP_DEFER_ACCEPT,
// tcp(7). 0 is off, the default. Not for protocols in which the server speaks first.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_defer_accept(tine_listener *listener,
                                           uint64_t milliseconds);

// Sets the size of the kernel's buffer for bytes that have come and were not read, of each connection: SO_RCVBUF, socket(7),
// 1 KiB to 1 GiB. Default: the kernel's, which tunes it.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_receive_buffer(tine_listener *listener,
                                             size_t bytes);

// Sets the size of the kernel's buffer for bytes that were sent and that the peer does not have, of each connection:
// SO_SNDBUF, as above.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_send_buffer(tine_listener *listener,
                                          size_t bytes);

// Adds a network whose clients may connect: "10.0.0.0/8", "2001:db8::/32", or the address of one client. Others are reset as
// they come, and so are those of a network of tine_listener_deny(). Default: every client may.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_allow(tine_listener *listener,
                                const char *network);

// Adds a network whose clients may not connect, as above. It wins over tine_listener_allow().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_deny(tine_listener *listener, const char *network);

// Sets the most new connections of one client in a second, 1 to 1,000,000; further ones are reset as they come. A
// client is an address, or a network as of the next function; of a unix socket, a user. In base mode each worker
// counts for itself. Default: no limit.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_max_new_per_second(tine_listener *listener,
                                                 uint32_t connections);

// Sets the bits of an IPv4 address, 1 to 32, and of an IPv6 address, 1 to 128, by which clients are told apart where they are
// counted. Default: 32 and 64.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_address_prefix(tine_listener *listener,
                                             uint8_t v4,
                                             uint8_t v6);

// Sets how many milliseconds a connection may last on which neither side has said anything, from the end of
// its `connect`: it is closed with FIN. TINE_NEVER for no limit. Default: 60,000.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_open_deadline(tine_listener *listener,
                                            uint64_t milliseconds);

// Sets how many milliseconds the peer may take for one message, from its first byte to its last: a slower
// one is closed with FIN, after the answers to its earlier messages. Raw streams have no such messages.
// TINE_NEVER for no limit. Default: 120,000.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_message_deadline(tine_listener *listener,
                                               uint64_t milliseconds);

// Sets how many milliseconds the peer may be silent while nothing is due to it: no message of it is with a
// worker or waits for one, and it has acknowledged all output. Output that it acknowledges ends its silence,
// too. Then tine_listener_set_on_idle() says what happens. Default: TINE_NEVER, since a client of a chat may
// listen for hours.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_idle(tine_listener *listener,
                                   uint64_t milliseconds);

// Sets the action at the idle deadline. Default: TINE_IDLE_CLOSE.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_on_idle(tine_listener *listener, tine_on_idle action);

// Sets how many milliseconds output may be unsent while the peer acknowledges nothing: the connection is
// reset, since after FIN the client would take a part for the whole. It is noticed up to an eighth later.
// TINE_NEVER for no limit. Default: 60,000.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_write_deadline(tine_listener *listener,
                                             uint64_t milliseconds);

// Sets how many milliseconds a message or another event of a connection may wait for a worker that begins
// its callback, in process mode: then its client gets the reply of the crash policy, if that has one, and the
// connection is closed, after the answers to its earlier messages. The callback is not run. In base mode
// messages wait in the kernel, and this has no effect. Default: TINE_NEVER.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_queue_deadline(tine_listener *listener,
                                             uint64_t milliseconds);

// Sets TCP keepalive, tcp(7): after this many milliseconds without a segment from the peer, 1,000 to
// 32,767,000, the kernel probes it, six times in as long again; a peer that answers none is gone, and its
// connection broken. TINE_NEVER sends no probes. Default: 60,000.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_keepalive(tine_listener *listener,
                                        uint64_t milliseconds);

// Sets TCP_USER_TIMEOUT, tcp(7): how many milliseconds output may be unacknowledged, or the peer's window
// closed, until the kernel breaks the connection; at most 24 days. TINE_NEVER leaves it to
// net.ipv4.tcp_retries2. Default: 120,000, or as long as the write deadline or twice the keepalive time if
// that is longer; TINE_NEVER without a write deadline.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_user_timeout(tine_listener *listener,
                                           uint64_t milliseconds);

// Adds a certificate to the listener, which speaks TLS from the first one on: PEM files with the chain, the server's
// own certificate first, and with its private key. A client gets the first one that is valid for the host name that
// it asks for, and else the first of all. The files are read when the server starts, in process mode by the master
// alone, and anew at SIGHUP.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_add_certificate(tine_listener *listener,
                                          const char *chain,
                                          const char *key);

// Asks each client of the listener for a certificate, which one of those in this PEM file must vouch for. With
// `may_be_unknown`, a client without a certificate is taken, too. Without a certificate of the server, there is no
// TLS, and tine_server_run() refuses this.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_client_authorities(tine_listener *listener,
                                                 const char *file,
                                                 bool may_be_unknown);

// Sets the protocols that the server speaks on this listener (ALPN), the most wanted first, with commas between:
// "h2,http/1.1". A client that offers others only is refused. Without a certificate of the server, there is no TLS,
// and tine_server_run() refuses this.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_application_protocols(tine_listener *listener,
                                                    const char *names);

// Expects the header of the PROXY protocol, version 1 or 2, at the begin of each connection of the listener, from
// proxies in these networks, with commas between: "10.0.0.0/8,::1/128". The client that the header names is the peer
// from then on. Connections from elsewhere are reset, and so is one without a right header. A text that is no network is
// found by tine_server_run().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_proxy_protocol(tine_listener *listener,
                                             const char *networks);

// Sets how many milliseconds the header of the PROXY protocol and the handshake of TLS may take together: then the
// connection is reset, and no callback knows of it. TINE_NEVER for no limit. Default: 10,000.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_opening_deadline(tine_listener *listener,
                                               uint64_t milliseconds);

// ---- Settings, before tine_server_run() ----

// Sets where the connections live. Default: TINE_MODE_PROCESS.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_mode(tine_server *server, tine_mode mode);

// Sets the number of worker processes, 1 to 511. Default: the cores of the machine.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_workers(tine_server *server, size_t workers);

// Sets the number of standby workers, 0 to 511: they start and run `worker_start`, and when a worker
// dies, one of them takes its seat at once. Default: 0.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_standby(tine_server *server,
                                    size_t workers);

// Sets the number of reactor threads of the master, 1 to 1023. Base mode has none. Default: half the
// cores, at least 1.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_reactors(tine_server *server,
                                     size_t reactors);

// Sets the most connections that are open at once, 1 to 4,194,304: of the server in process mode, of
// each worker in base mode. Further clients wait in the kernel. Default: 65,536, or as many as the limit
// of open files allows.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_max_connections(tine_server *server,
                                            size_t connections);

// Sets the most connections of one client address that are open at once, 1 to 4,194,304: of the server in
// process mode, of each worker in base mode. Further connections from there are reset as soon as they are
// accepted. An IPv6 client counts by its first 64 bits. Default: no limit.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_max_connections_per_address(tine_server *server,
                                                        size_t connections);

// Sets which worker a connection's messages go to, in process mode. Default:
// TINE_DISPATCH_LEAST_CONNECTIONS.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_dispatch(tine_server *server, tine_dispatch mode);

// Sets a function that chooses the seat of each callback, in process mode, in place of
// tine_server_set_dispatch(). Callbacks of one connection stay in order: one for another seat waits for
// those before it. A connection for an empty seat waits for the next worker there.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_dispatch_fn(tine_server *server,
                                        tine_dispatch_fn function,
                                        void *userdata);

// When a worker dies in a callback, its connection is closed after its committed output, so that the
// client learns of it at once. The default. This and the next three set one setting: the last call
// counts. A function set by tine_server_set_crash_fn() replaces it. tine_on_crash has the rules for all.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_close(tine_server *server);

// When a worker dies in a callback, the callback is run again in another worker, up to `attempts` times
// in all, 1 to 255, the first run included; other numbers are refused. With 1 it is not run again, unless it is a `close`
// in which a worker died. Then its message is logged and its connection closed. A callback that has called
// tine_flush() is not run again, and its connection is closed.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_redeliver(tine_server *server,
                                            uint32_t attempts);

// When a worker dies in a callback, these bytes are sent, and the connection is closed: a ready-made
// "502 Bad Gateway", for example. They are copied. After a tine_flush() the connection is only closed.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_reply(tine_server *server,
                                        const void *reply,
                                        size_t length);

// When a worker dies in `receive`, these bytes are the answer to the message, and the connection stays: the error of a
// protocol, for example. They are copied. Listeners need a protocol that knows where the next message begins. After a
// tine_flush(), and for other callbacks, it is as with tine_server_set_crash_reply().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_answer(tine_server *server,
                                         const void *answer,
                                         size_t length);

// When a worker dies in a callback, its message is dropped: the client waits, and a connection that it
// closes stays in CLOSE_WAIT. Other servers behave like that; it is here for comparison.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_keep(tine_server *server);

// Sets a function that decides the fate of each callback in which a worker died, or that failed.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_fn(tine_server *server, tine_crash_fn function, void *userdata);

// Sets how many milliseconds a callback may run, 1 or more, and the action for one that runs longer.
// Time in which the worker is stopped or the machine is suspended does not count. Default: no limit.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_callback_limit(tine_server *server,
                                           uint64_t milliseconds,
                                           tine_limit_action action);

// Recycles a worker after this many messages, 1 or more, plus up to 25 % jitter so that workers are not
// all recycled at once. One seat at a time; the new worker starts first. Default: never.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_max_requests(tine_server *server,
                                         uint64_t messages);

// Recycles a worker with more than this many bytes of private memory, at least 1 MiB, and kills one with
// more than twice as many. Default: no limit.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_worker_memory(tine_server *server,
                                          uint64_t bytes);

// Ends the server with TINE_ERROR_CRASH_LOOP when every seat has been in back-off for this many
// milliseconds: its workers died young, before their first callback. Default: the server keeps trying.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_fail_on_crash_loop(tine_server *server,
                                               uint64_t milliseconds);

// Sets how many milliseconds after the peer's FIN, or after the last byte that the peer took since, the
// socket is closed, whether or not the worker has finished. With TINE_NEVER the socket may stay in
// CLOSE_WAIT. Default: 5,000.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_close_deadline(tine_server *server,
                                           uint64_t milliseconds);

// Sets how many milliseconds a server that is shut down, or a worker that is replaced, may take to
// finish its work. Default: 10,000.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_shutdown_deadline(tine_server *server, uint64_t milliseconds);

// Writes the pid of the process that handles signals (the master, in base mode the manager) to a file,
// atomically, and removes the file at the end if it is still this server's. A file that names another
// process which runs is refused, and so is anything but a regular file. Default: no file.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_pid_file(tine_server *server,
                                     const char *path);

// Sets the name of the server in the titles of its processes, for ps(1) and pkill -f: `tine[NAME] worker#0: `
// and the command line. 1 to 64 letters, digits, '.', '_', '-' and ':'. Default: the first port that it listens
// on.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_name(tine_server *server,
                                 const char *name);

// Sets a process, by pid, with which the server ends: by force, as after a second SIGINT. It need not be the
// parent of the calling process. Default: none.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_die_with(tine_server *server,
                                     uint32_t pid);

// Sets the most bytes of a poisonous message, one that has used up its attempts, that the log shows, on one
// line: 0 to 65536. With 0 the log has its length alone. Default: 256.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_poison_shown(tine_server *server,
                                         size_t bytes);

// Sets how many times the function for a post (tine_server_on_post()) is called, if the worker dies in it or it fails,
// before the post is dropped and logged: 1 to 255. Default: 3.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_post_attempts(tine_server *server,
                                          uint8_t attempts);

// Sets the high-water mark: reading from a connection pauses while more than this many of its bytes are
// unsent, and resumes at half of it; `paused` and `resumed` are called. 1 up to the output limit, at most
// 8 GiB. Default: 1 MiB.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_output_high_water(tine_server *server,
                                              size_t bytes);

// Sets the most unsent bytes of a connection: one with more is closed as a slow reader. Also the most
// bytes that one callback can send (TINE_ERROR_OVER_LIMIT): each tine_conn_send() counts 64 bytes more
// than it sends, and one with more than 128 KiB counts as several. At least the high-water mark, at most
// 16 GiB. Default: the high-water mark plus the size of an inbox and of the longest message; at
// least 16 MiB, where the default of the memory budget has room for it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_output_limit(tine_server *server,
                                         size_t bytes);

// Sets the most bytes that the process which owns the sockets holds for all its connections: unsent
// output, and incomplete messages. Over the budget, the connections that hold most are closed. At least
// the output limit (and the longest message, unless raw) for each reactor. Default: twice that, at least
// 256 MiB; but no more than a quarter of the memory that the server may use (the limits of its cgroups and of its
// address space, RAM), unless the least is more.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_memory_budget(tine_server *server,
                                          size_t bytes);

// ---- Callbacks of the workers, before tine_server_run() ----

// Sets a pointer for the callbacks of the workers: their `state`, until `worker_start` replaces it in
// its worker. Each worker has its own copy of all memory as of its fork: the target of the pointer is
// a copy, and no other process sees changes that one worker makes to it. Default: NULL.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_userdata(tine_server *server,
                                     void *userdata);

// Worker: a function that prepares the worker, for resources that each worker has of its own: a
// database handle, a random seed. It may block. If it fails, the worker does not start, and a starting
// server ends. In a running server, a worker that takes longer than a minute, the shutdown deadline and
// twice the longest start so far is killed, and another one is started.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_start(tine_server *server,
                                        tine_worker_start_fn function);

// Worker: a function for a standby worker that takes the seat of a dead one, called before its first
// callback for a connection. Its `worker_start` has run already, without a seat. If it fails, the
// worker exits, as after a crash.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_seated(tine_server *server,
                                         tine_worker_seated_fn function);

// Worker: a function for a client that has connected. With tine_server_set_crash_redeliver() it may run
// more than once for a connection; and `close` follows also after a `connect` that has killed its last
// worker.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_connect(tine_server *server,
                                   tine_conn_fn function);

// Worker: the function for a message, the one callback that a server must have.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_receive(tine_server *server, tine_receive_fn function);

// Worker: a function for a connection that has ended, its last callback. Bytes sent there still reach a
// peer that has closed only its writing side.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_close(tine_server *server,
                                 tine_close_fn function);

// Worker: a function for a connection from which reading has paused, as its peer reads too slowly: see
// tine_server_set_output_high_water().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_paused(tine_server *server,
                                  tine_conn_fn function);

// Worker: a function for the end of the pause: unsent output has fallen to half of the high-water mark,
// and the server reads from the connection again.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_resumed(tine_server *server,
                                   tine_conn_fn function);

// Worker: a function for a connection that has been idle for as long as tine_listener_set_idle() allows, if
// its listener has TINE_IDLE_CALL. It may send a ping, or close the connection; without a function the
// connection is closed.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_idle(tine_server *server,
                                tine_conn_fn function);

// Worker: a function for a timer that has fired, which a callback has set by tine_conn_after(). Its output and the
// end of the timer are committed together: if its worker dies, the crash policy decides whether it runs again, as
// for a message.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_timer(tine_server *server,
                                 tine_timer_fn function);

// Worker: a function that is called when the socket has taken all output of a connection, once for each
// tine_conn_notify_drained(). More can be sent there, up to the output limit, and so on: an answer of any length is
// streamed without waiting for a slow client, and without being cut.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_drained(tine_server *server,
                                   tine_conn_fn function);

// Worker: a function for what callbacks have posted to this worker by tine_post_to_seat() and its like. Its output and the end
// of the post are committed together; if its worker dies in it, or it fails, it runs again, as often as
// tine_server_set_post_attempts() allows, in base mode once. It is about no connection.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_post(tine_server *server,
                                tine_post_fn function);

// Worker: a function that releases the resources of `worker_start`, when the worker leaves as asked. Not
// called when it crashes. After it, the worker ends by _exit(2): handlers of atexit(3) belong to the
// process that has forked it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_stop(tine_server *server,
                                       tine_worker_stop_fn function);

// ---- Callbacks of master and manager, before tine_server_run() ----

// Master (base mode: manager): a function that is called once every worker is ready. In the master it
// may start threads, in the manager it must not. No signal is handled before it returns, and in process
// mode no connection accepted.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_start(tine_server *server,
                                 tine_start_fn function,
                                 void *userdata);

// Master (base mode: manager): a function that is called after an orderly end, when every worker
// has ended.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_shutdown(tine_server *server, tine_server_fn function, void *userdata);

// Manager: a function that is called before the first worker is forked. It must start no thread.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_manager_start(tine_server *server,
                                         tine_server_fn function,
                                         void *userdata);

// Manager: a function that is called when the last worker has left.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_manager_stop(tine_server *server,
                                        tine_server_fn function,
                                        void *userdata);

// Manager: a function that is called when a worker has exited, abnormally or not, after its log line and
// after its seat was refilled. No worker is forked or reaped before it returns, and it must start no
// thread.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_exit(tine_server *server,
                                       tine_worker_exit_fn function,
                                       void *userdata);

// ---- What a callback of a connection can do ----

// Sends `length` bytes to a connection: the callback's own or any other of the server (in base
// mode: of this worker), all or none of them. They may be reused when it returns. For a connection that
// is gone, they are dropped.
//
// The bytes leave when the callback returns TINE_OK or calls tine_flush(): a callback that fails before
// that, or in which the worker dies, has sent nothing. They are copied once; any part of the callback's own
// message, sent to any connection of the same reactor, is not copied at all. It never waits for the
// client. There is no order between the outputs of callbacks of different connections to the same one.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OVER_LIMIT, TINE_ERROR_OTHER_WORKER,
// TINE_ERROR_CLOSED.
tine_status tine_conn_send(tine_conn conn,
                           const void *message,
                           size_t length);

// Closes a connection after its output: with FIN, once the peer has taken all of it. Messages of it
// that no callback has begun are dropped, and its `close` is called. Of another connection, in process
// mode, those that are in a worker's inbox by then still have their callbacks.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER, and TINE_ERROR_OVER_LIMIT when the
// calls of one callback on other connections count more than its output limit, 64 bytes each, in process
// mode.
tine_status tine_conn_close(tine_conn conn);

// Closes a connection at once with RST: unsent output is dropped, and its `close` is called.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER, and TINE_ERROR_OVER_LIMIT as for
// tine_conn_close().
tine_status tine_conn_reset(tine_conn conn);

// Associates a connection with a user id: any number, such as that of a user, an account, a tenant.
// With TINE_DISPATCH_USER_ID all connections of one user id go to one worker, from the next message on;
// a dispatch function gets it too. Base mode: no effect, a connection stays with its worker.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER, and TINE_ERROR_OVER_LIMIT as for
// tine_conn_close().
tine_status tine_conn_set_user(tine_conn conn,
                               uint64_t user);

// Writes the client's address and port to `peer`, for the callback's own connection. A client of IPv4 is one of AF_INET at
// every listener. A client of a unix socket has the family AF_UNIX and no address: tine_address_credentials() reads its
// process and its user.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_peer(tine_conn conn,
                           struct sockaddr_storage *peer);

// Writes the listener that accepted the callback's own connection to `listener`.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_listener(tine_conn conn, tine_listener_id *listener);

// Writes the number of earlier runs of this callback with this message to `attempt`: runs in which a
// worker died, or that failed. Always 0 except under TINE_ON_CRASH_REDELIVER, and in a `close` that runs
// a second time.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_attempt(tine_conn conn,
                              uint8_t *attempt);

// Commits the output of this callback so far, which leaves now. From here on the callback can't be run
// again: if the worker dies in it, or it fails, the connection is closed. A callback that sends more
// than the output limit can flush in between.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN in a callback that is about no connection.
tine_status tine_flush(void);

// Shuts the server down gracefully, as SIGTERM does, once this callback has returned TINE_OK or called
// tine_flush(); not at all if it fails or its worker dies before.
//
// In a callback of a connection, by the thread that runs it. Elsewhere, use tine_server_stop().
//
// Errors: TINE_ERROR_OUTSIDE.
tine_status tine_stop(void);

// Replaces the workers one at a time, as SIGUSR1 does, once this callback has returned TINE_OK or
// called tine_flush(); not at all if it fails or its worker dies before.
//
// In a callback of a connection, by the thread that runs it. Elsewhere, use tine_server_reload().
//
// Errors: TINE_ERROR_OUTSIDE.
tine_status tine_reload(void);

// Writes counters of the running server to `stats`, which has `size` bytes. Pass `sizeof *stats`, so
// that a program works with later versions that have more counters.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a size of no version, TINE_ERROR_OUTSIDE.
tine_status tine_stats_read(tine_stats *stats,
                            size_t size);

// Sends a part of a file to a connection, the callback's own or any other of the server (in base mode: of this
// worker): `length` bytes from `offset` on, counted from the start of the file. `fd` is its descriptor, of a regular
// file that is open for reading; it is copied, and may be closed when this returns. Its own offset is neither used
// nor changed.
//
// The server reads the bytes when the client takes them, so that an answer of any length is neither in a worker nor
// kept in memory, and sends them however long this worker lives. They are in order with what tine_conn_send() sends,
// and leave with it: when the callback returns TINE_OK, or calls tine_flush(). They are those that the file has when
// they are sent. It must not become shorter until then: replace a file with rename(2), and do not truncate it. If
// its bytes can't be read, the connection is closed with RST, and its `close` has TINE_CLOSE_FILE_FAILED.
//
// The bytes count as unsent output in all but the limits of memory: reading from the connection pauses while they are
// more than tine_server_set_output_high_water(), and tine_conn_notify_drained() waits for them. Until they are sent,
// the server holds a descriptor, of those that clients need (RLIMIT_NOFILE, getrlimit(2)).
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID for a descriptor that is not one of a regular file that is open for reading, without
// O_DIRECT, and for bytes that the file has not; TINE_ERROR_OPEN_FILES when as many files are being sent as may be,
// 16 by one commit among them, and when this process has no free descriptor; TINE_ERROR_OUTSIDE,
// TINE_ERROR_OTHER_WORKER, TINE_ERROR_CLOSED, and TINE_ERROR_OVER_LIMIT as for tine_conn_close().
tine_status tine_conn_send_file(tine_conn conn,
                                int fd,
                                uint64_t offset,
                                uint64_t length);

// Sets the state of the callback's own connection: at most TINE_MOST_STATE bytes, which may be reused when it
// returns. It is part of the callback's output: it is committed with the answer, or not at all. It belongs to the
// connection and not to this worker: the next callback of the connection finds it wherever it runs, also after a
// crash, a reload or a recycling, until its `close` has run. It counts against the memory budget.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none and for more bytes,
// TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL.
tine_status tine_conn_set_state(tine_conn conn,
                                const void *state,
                                size_t length);

// Writes the state of the callback's own connection to `state` and `length`: the bytes that this callback or the
// last committed one of this connection has set. They are valid until the state is set again or the callback
// returns. A connection without state has a length of 0.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_state(tine_conn conn,
                            const void **state,
                            size_t *length);

// Writes the user id of the callback's own connection to `user`, and whether tine_conn_set_user() has set one to
// `is_set`; without one, `user` is 0.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_user(tine_conn conn,
                           uint64_t *user,
                           bool *is_set);

// Writes the number of the callback's message on its connection to `number`: from 0, and the same in every attempt.
// With the id of the connection it tells whether an effect outside of the server was there already: a row with
// that key in a database, for example.
//
// In a `receive` callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none, and in a callback for another event,
// TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_message_number(tine_conn conn,
                                     uint64_t *number);

// Sets a timer of the callback's own connection: tine_server_on_timer() is called with this tag when the time has
// passed, and not earlier, in whichever worker is there by then. A connection has one timer for each tag: the last
// call for it counts, also while it waits for its callback. It fires once; to repeat it, set it again in its
// callback. Timers end with their connection.
//
// It is part of the callback's output: it is committed with the answer, or not at all. Its time counts from then on,
// and stands still while the whole server is stopped.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL, and TINE_ERROR_OVER_LIMIT when
// the calls of one callback count more than its output limit, 64 bytes each.
tine_status tine_conn_after(tine_conn conn,
                            uint64_t milliseconds,
                            uint64_t tag);

// Cancels the timer of the callback's own connection with this tag, if there is one. A callback that is on its way to
// a worker by then still runs.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
// tine_conn_after().
tine_status tine_conn_cancel(tine_conn conn,
                             uint64_t tag);

// Asks for one call of tine_server_on_drained()'s function, when the socket has taken all output of the callback's own
// connection; at once if it has. For an answer that is longer than one callback may send.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
// tine_conn_after().
tine_status tine_conn_notify_drained(tine_conn conn);

// Promises that the answer of the callback's own connection comes within this time, an hour at most, from a later callback:
// of a timer, a post, a task, or another connection. The next output to the connection keeps the promise, whichever
// callback sends it. If there is none in time, the connection gets `reply`, which may be reused when this returns, and is
// closed with TINE_CLOSE_ANSWER_DEADLINE; likewise, with TINE_CLOSE_CRASH, if a callback of the connection fails meanwhile
// and the crash policy closes the connection. So a client has its answer or the reply, whatever happens to the workers,
// unless a callback closes its connection or the server is forced to end.
//
// The answer must be caused by this commit, as a timer, a post or a task of this callback is, or come after a tine_flush():
// an output that is committed before the promise does not keep it.
//
// Until then the next messages of the connection wait in the server, and so does its `close`: answers are in the order
// of their messages. Its timers and the other events run. A second call replaces the time and the reply. The promise
// is committed with the callback's output; what the callback has sent before does not keep it.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none and for a reply of more than
// TINE_MOST_REPLY bytes, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT as for
// tine_conn_after().
tine_status tine_conn_answer_within(tine_conn conn,
                                    uint64_t milliseconds,
                                    const void *reply,
                                    size_t length);

// Stops reading from the callback's own connection, so that TCP slows its client down: until tine_conn_resume(), and
// for 60 seconds at most. Messages that were read before still have their callbacks, and the client's end is noticed
// meanwhile. As part of the callback's output, it is committed with the answer.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
// tine_conn_after().
tine_status tine_conn_pause(tine_conn conn);

// Reads from the callback's own connection again, after tine_conn_pause().
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
// tine_conn_after().
tine_status tine_conn_resume(tine_conn conn);

// Writes a fact about how the callback's own connection came to `bytes` and `length`: what its TLS and the PROXY
// protocol of its listener have told. They are valid until the callback returns, and no NUL is behind them. `bytes`
// is NULL and `length` 0 if nothing is known of it.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_origin(tine_conn conn,
                             tine_fact fact,
                             const void **bytes,
                             size_t *length);

// Posts up to TINE_MOST_POST bytes to the worker that has this seat, from 0: the N of `worker#N`.
// tine_server_on_post()'s function is called there with them. As part of the callback's output, they are committed
// with the answer. They are the master's then: if a worker dies before it has handled them, or in that, its
// successor gets them. Posts of one connection's callbacks to one seat arrive in order while the connection stays
// with its worker; there is no other order. The bytes may be reused when it returns.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes and for a seat that no worker has, TINE_ERROR_OUTSIDE,
// TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT when the posts of one callback count more than its output limit, their bytes
// and 64 each, and TINE_ERROR_OTHER_WORKER in base mode for any worker but this one.
tine_status tine_post_to_seat(size_t seat,
                              const void *message,
                              size_t length);

// Posts to every worker that has a seat, this one included; as tine_post_to_seat() in all else.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: as tine_post_to_seat().
tine_status tine_post_to_all(const void *message, size_t length);

// Posts to any worker: the one with the fewest messages to handle, as far as the dispatch counts them; as
// tine_post_to_seat() in all else.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: as tine_post_to_seat().
tine_status tine_post_to_least_busy(const void *message,
                                    size_t length);

// Posts to the worker of a connection, by the time that the post is committed; as tine_post_to_seat() in all else. For
// a connection that is gone, it is dropped.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: as tine_post_to_seat(), and TINE_ERROR_INVALID for a connection that is none.
tine_status tine_post_to_owner(tine_conn conn,
                               const void *message,
                               size_t length);

// Posts to the worker that has this seat, or with -1 to every worker that has a seat, or with -2 to any worker. What
// tine_post_to_seat() says of posts holds for these, which are committed at once; those of one thread to one seat
// arrive in order. Master: any thread, while tine_server_run() runs.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes and for a seat that no worker has, TINE_ERROR_FULL,
// TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS, and TINE_ERROR_OTHER_WORKER in base mode.
tine_status tine_server_post(const tine_server *server,
                             int64_t seat,
                             const void *message,
                             size_t length);

// Makes a poster of this worker, and writes it to `poster`. Free it with tine_poster_free(), or keep it until the
// process ends.
//
// In any callback of a worker, `worker_start` included, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL; TINE_ERROR_OUTSIDE; TINE_ERROR_SYSTEM when no descriptor is left for the first one.
tine_status tine_poster_new(tine_poster **poster);

// Returns another poster that does the same, to be freed by itself: a thread that is given one of its own need not
// know when others free theirs. NULL for NULL. Any thread of the worker.
tine_poster *tine_poster_clone(const tine_poster *poster);

// Frees a poster; NULL is fine. No thread may use it then. What it has posted stays posted. Any thread of the worker.
void tine_poster_free(tine_poster *poster);

// Posts up to TINE_MOST_POST bytes to the worker that has this seat, or with TINE_SEAT_ALL to every worker that has
// a seat, or with TINE_SEAT_ANY to any worker. The bytes are copied. It does not wait. The worker takes posts
// between two callbacks: while it is in one, they wait. They are committed by themselves, and are the master's then,
// as tine_post_to_seat() says. Posts of one thread to one seat arrive in order.
//
// A worker that dies takes the posts that still wait with it. One that leaves takes all that were made before its
// `worker_stop` has returned; in base mode, those before it was called.
//
// In base mode, to this worker alone: its own seat, or TINE_SEAT_ANY.
//
// Any thread of the worker; several may use one poster at a time.
//
// Errors: TINE_ERROR_NULL; TINE_ERROR_INVALID for more bytes and for a seat that no worker has; TINE_ERROR_FULL when
// 4096 posts or 1 MiB of them wait in this worker, and a later try may succeed; TINE_ERROR_NOT_RUNNING when the
// worker has left; TINE_ERROR_WRONG_PROCESS in a process that was forked from the worker; TINE_ERROR_OTHER_WORKER.
tine_status tine_poster_post(const tine_poster *poster,
                             int64_t seat,
                             const void *message,
                             size_t length);

// Posts to the worker of a connection, by the time that the worker takes the post; as tine_poster_post() in all
// else. For a connection that is gone, it is dropped; in base mode also for one of another worker.
//
// Any thread of the worker.
//
// Errors: as tine_poster_post(), and TINE_ERROR_INVALID for a connection that is none.
tine_status tine_poster_post_to_owner(const tine_poster *poster,
                                      tine_conn conn,
                                      const void *message,
                                      size_t length);

// ---- Tasks, and timers of the server ----

// Queues a task of up to TINE_MOST_TASK bytes for the task workers (tine_server_set_task_workers()): the next one that is
// free runs tine_server_on_task()'s function for it. `options` may be NULL: a task that runs as soon as it can, without
// key and tag. As part of the callback's output, it is committed with the answer. It is the master's then, which runs it
// again if a worker dies in it. The bytes may be reused when it returns.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes, TINE_ERROR_OUTSIDE, TINE_ERROR_NO_TASK_WORKERS, also in base
// mode, TINE_ERROR_QUEUE_FULL, TINE_ERROR_OVER_LIMIT as for tine_post_to_seat().
tine_status tine_task(const void *task,
                      size_t length,
                      const tine_task_options *options);

// Sets the result of the callback's task, up to TINE_MOST_TASK bytes: the last one counts, and an empty one if there is
// none. As part of the callback's output, it is committed with the end of the task. Without a tag, nobody gets it.
//
// In tine_server_on_task()'s function, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes, TINE_ERROR_OUTSIDE, TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT as
// for tine_post_to_seat().
tine_status tine_task_finish(const void *result,
                             size_t length);

// Worker: a function for tasks, which callbacks have queued by tine_task(). It runs in task workers alone, and may block
// for as long as a task takes. Its output, whatever connections that reaches, and the end of the task are committed
// together; if its worker dies in it, or it fails, it runs again, as often as tine_server_set_task_attempts() allows.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_task(tine_server *server,
                                tine_task_fn function);

// Worker: a function for the results of tasks that were queued with a tag. It runs as tine_server_on_post()'s function
// does. It is not called for a task that was given up.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_finished(tine_server *server,
                                    tine_finished_fn function);

// Master: a function for each task that is given up: all attempts are used up, or it has flushed part of its output and
// did not complete. The log names it as well. It is called by the first reactor thread: it must not block.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_task_failed(tine_server *server,
                                       tine_task_failed_fn function,
                                       void *userdata);

// Sets the number of task workers, in process mode: they have the seats behind those of the workers, and run
// tine_server_on_task()'s function, and nothing for clients. Together with the workers at most 511. Base mode refuses
// any but 0. Default: 0.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_task_workers(tine_server *server,
                                         size_t workers);

// Sets how many times the function for a task is called, if the worker dies in it or it fails, before the task is given
// up: 1 to 255. Default: 3.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_task_attempts(tine_server *server,
                                          uint8_t attempts);

// Sets the most tasks that wait or run, delayed ones included, 1 to 16,777,216. Beyond it, tine_task() fails. Default:
// 65,536.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_task_queue(tine_server *server,
                                       size_t tasks);

// Sets the most bytes of the tasks that wait or run: each counts 256 bytes more than it has. At most half of the memory
// budget. Default: a quarter of the memory budget.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_task_queue_bytes(tine_server *server,
                                             size_t bytes);

// The callback's own connection joins a group. A group has any name of at most TINE_MOST_NAME bytes, and exists while it
// has members. The connection gets what is published to it from the commit of this callback on. A member that joins
// again stays one. The membership belongs to the connection and not to this worker, until the connection leaves or has
// ended and its `close` has run. It counts against the memory budget.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none and for a longer name, TINE_ERROR_OUTSIDE,
// TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL, also for a connection in TINE_MOST_GROUPS groups, TINE_ERROR_OVER_LIMIT as for
// tine_conn_after().
tine_status tine_conn_join(tine_conn conn,
                           const void *group,
                           size_t length);

// The callback's own connection leaves a group; without effect if it is no member.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN,
// TINE_ERROR_OVER_LIMIT as for tine_conn_after().
tine_status tine_conn_leave(tine_conn conn,
                            const void *group,
                            size_t length);

// Writes the name of a group of the callback's own connection to `group` and `length`: of the group with this index,
// from 0, in the order in which it has joined them. The name is valid until the connection joins or leaves a group or the
// callback returns. Past the last group, `group` is NULL and `length` 0. In its `close`, the connection is still in its
// groups.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_group(tine_conn conn,
                            size_t index,
                            const void **group,
                            size_t *length);

// Publishes up to TINE_MOST_PUBLISH bytes to a group: every member is sent them, but for `except`, which may be {0}. As
// part of the callback's output, they are committed with the answer, and may be reused when it returns. That is one copy
// of the bytes, however many members there are. All members get everything that is published to the group in the same
// order, whichever callbacks publish. What the socket of a member does not take is kept for it, up to
// tine_server_set_output_limit().
//
// In base mode, the members that are connections of this worker get them.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes and for a name over TINE_MOST_NAME, TINE_ERROR_OUTSIDE,
// TINE_ERROR_OVER_LIMIT when what one callback publishes counts more than its output limit: names and bytes, and 64 for
// each call.
tine_status tine_publish(const void *group,
                         size_t group_length,
                         const void *message,
                         size_t length,
                         tine_conn except);

// Publishes to a group as tine_publish() does, but for slow members: one to which more than
// tine_server_set_output_high_water() is unsent misses these bytes as a whole, and is not reset for them. The log says
// how many have missed something.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: as tine_publish().
tine_status tine_publish_lossy(const void *group,
                               size_t group_length,
                               const void *message,
                               size_t length,
                               tine_conn except);

// Writes the number of a group's members to `size`. What this callback joins and leaves is not counted, as it is not
// committed. It asks the master and waits for the answer: mostly for some microseconds, and for two seconds at most. In
// base mode, the members are counted that are connections of this worker.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a name over TINE_MOST_NAME, TINE_ERROR_OUTSIDE, TINE_ERROR_NO_ANSWER.
tine_status tine_group_size(const void *group,
                            size_t length,
                            size_t *size);

// Writes whether a connection exists to `exists`: it has come, and its `close` has not run. What this callback has
// closed still exists, as that is not committed. It may end right after the answer. It asks the master and waits for
// the answer: mostly for some microseconds, and for two seconds at most.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none, TINE_ERROR_OUTSIDE,
// TINE_ERROR_NO_ANSWER, and TINE_ERROR_OTHER_WORKER in base mode for a connection that this worker does not know.
tine_status tine_conn_exists(tine_conn conn,
                             bool *exists);

// Lists the connections of the server, in no order, also those whose client has closed, until their `close` has run.
// `infos` points to memory for `capacity` of them, each of `size` bytes: pass `sizeof *infos`. The number that there
// are is written to `count`; if that is more than `capacity`, the rest is left out. `infos` may be NULL with a
// capacity of 0.
//
// A connection that exists during the whole call is listed once. One that comes or ends meanwhile is listed or not.
// It asks the master for 128 connections at a time, and waits for each answer for two seconds at most. In base mode,
// the connections of this worker are listed.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a size of no version, TINE_ERROR_OUTSIDE, TINE_ERROR_NO_ANSWER.
// Nothing is written then.
tine_status tine_connections(tine_conn_info *infos,
                             size_t size,
                             size_t capacity,
                             size_t *count);

// Sets a timer of the server: tine_server_on_server_timer()'s function is called once with this tag when the time has
// passed, in one worker or in each. It belongs to no connection, and is the master's: workers may come and go. The server
// has one timer for each tag. If the same one is set already, nothing changes, so that each worker may set it; one with
// another time, another `run`, or of tine_every(), is replaced. It is part of the callback's output, and its time counts
// from the commit.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT as for tine_post_to_seat(), and
// TINE_ERROR_OTHER_WORKER in base mode for TINE_RUN_EACH: there each worker has timers of its own, which end with it.
tine_status tine_after(uint64_t milliseconds,
                       uint64_t tag,
                       tine_run run);

// Sets a timer of the server as tine_after() does, which fires again each time that the interval has passed: at least a
// millisecond. While its callbacks of the last time are under way, it does not fire: that time is left out.
// tine_server_every() sets one from the start.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: as tine_after().
tine_status tine_every(uint64_t milliseconds,
                       uint64_t tag,
                       tine_run run);

// Cancels the timer of the server with this tag, if there is one. A callback that is on its way to a worker by then still
// runs.
//
// In a callback of a worker, by the thread that runs it.
//
// Errors: TINE_ERROR_OUTSIDE, TINE_ERROR_OVER_LIMIT as for tine_post_to_seat().
tine_status tine_cancel(uint64_t tag);

// Sets a timer that the server has from its start, as tine_every() does later. In base mode each worker has timers of its
// own, and tine_server_run() refuses TINE_RUN_ONE.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_every(tine_server *server,
                              uint64_t milliseconds,
                              uint64_t tag,
                              tine_run run);

// Worker: a function for a timer of the server that has fired. It runs as tine_server_on_post()'s function does.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_server_timer(tine_server *server,
                                        tine_server_timer_fn function);

// Reads the credentials of a client of a unix socket. `address` is one that tine_conn_peer(), tine_connections(), a
// dispatch function or a crash function has had from the server. Any thread of any process may call it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for any other address.
tine_status tine_address_credentials(const struct sockaddr *address,
                                     tine_credentials *credentials);

// ---- Addresses ----

// Writes an address as text with its NUL: "127.0.0.1:9501" or "[::1]:9501", or of a client of a unix socket
// "unix:pid=4711,uid=1000,gid=1000". `address` is an IPv4 or an
// IPv6 address, or one that the server has written; `text` has `size` bytes, of which TINE_ADDRESS_TEXT are always enough. Any thread of
// any process may call it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for another family, TINE_ERROR_TOO_SMALL.
tine_status tine_address_text(const struct sockaddr *address,
                              char *text,
                              size_t size);

// ---- Log ----

// Sets the log: lines up to `level` go to `function`, or, if that is NULL, to standard error with time,
// level, role and pid. No line is waited for there, whatever standard error is: a line for which there is no
// room is dropped and counted. Without this call, lines up to
// TINE_LOG_INFO go to standard error, from tine_server_run() on.
//
// Once in a process, before tine_server_run(). `userdata` is passed to the function until the process
// ends, also after tine_server_run() has returned.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_log_to(tine_log_level level,
                        tine_log_fn function,
                        void *userdata);

// Writes a line to the server's log, with the role and the pid of the calling process. Any thread of
// any process may call it. Bytes that are not UTF-8 are replaced, so that a text may be cut anywhere.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a level.
tine_status tine_log(tine_log_level level,
                     const char *message);

// Sets the log in the place of tine_log_to(): lines up to `level`, in this format, are appended to the file at `path`, or,
// if that is NULL, go to standard error. The file is made with mode 0640, less the umask, if there is none, and SIGHUP to
// the server opens it again.
//
// Once in a process, before tine_server_run().
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_ALREADY, TINE_ERROR_SYSTEM if the file can't be opened.
tine_status tine_log_to_file(tine_log_level level,
                             const char *path,
                             tine_log_format format);

// ---- What went wrong, and versions ----

// Returns the meaning of a status in a few English words. Never NULL; the text is never freed. Any
// thread of any process may call it.
const char *tine_strerror(tine_status status);

// Returns the details of this thread's last failed call: the argument or setting, the mistake, the
// remedy. Empty if none has failed; never NULL. A successful call does not change it. The text belongs
// to the library, and is valid until the next failed call of this thread.
const char *tine_last_error(void);

// For callbacks: sets the reason of their failure for the log, and returns TINE_ERROR_FAILED, for
// `return tine_fail("no such user")`. The text is copied, and becomes tine_last_error(). Any thread of
// any process may call it.
//
// Errors: TINE_ERROR_NULL. It never returns TINE_OK.
tine_status tine_fail(const char *why);

// Returns the errno(3) of this thread's last failed call: EADDRINUSE, for example. 0 if the failure was
// not from the kernel.
int tine_last_errno(void);

// Returns the version of the library that runs: "0.1.0", for example. TINE_VERSION is the version of the
// header that the program was compiled with. Never NULL; the text is never freed. Any thread of any
// process may call it.
const char *tine_version(void);

// Returns the version of the library that runs as a number that grows, to be compared with
// TINE_VERSION_NUMBER: 0x000100 for 0.1.0, with a byte for each of its parts.
uint32_t tine_version_number(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TINE_H */
