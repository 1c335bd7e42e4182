//! The making of a worker's handler.

use super::{Conn, Context, Handler};
use crate::error::Result;

/// The return type of the closure for [`Server::run`](crate::Server::run): a [`Handler`], or a `Result`
/// with one.
///
/// ```no_run
/// use tine::{Conn, Context, Handler, Server, Worker};
///
/// struct App {
///     words: Vec<String>,
/// }
///
/// impl App {
///     fn open(_: Worker) -> std::io::Result<App> {
///         let words = std::fs::read_to_string("/usr/share/dict/words")?;
///         Ok(App { words: words.lines().map(str::to_owned).collect() })
///     }
/// }
///
/// impl Handler for App {
///     fn receive(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, _: &[u8]) -> tine::Result {
///         Ok(conn.send(format!("{}\n", self.words.len()).as_bytes())?)
///     }
/// }
///
/// // A worker that can't open the file does not start, and its log line says why.
/// Server::new().run(App::open)?;
/// # Ok::<(), tine::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a handler nor a `Result` with one",
    label = "a `Handler`, or a `Result` with one, is expected here"
)]
pub trait IntoHandler {
    /// The handler.
    type Handler: Handler;

    /// Returns the handler.
    ///
    /// # Errors
    /// The error of a `Result`.
    fn into_handler(self) -> Result<Self::Handler>;
}

impl<H: Handler> IntoHandler for H {
    type Handler = H;

    fn into_handler(self) -> Result<H> {
        Ok(self)
    }
}

impl<H, E> IntoHandler for std::result::Result<H, E>
where
    H: Handler,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Handler = H;

    fn into_handler(self) -> Result<H> {
        self.map_err(Into::into)
    }
}

/// Returns a handler with a function or closure for [`receive`](Handler::receive), and no other callback.
///
/// ```no_run
/// use tine::{Server, receive_fn};
///
/// let server = Server::new().listen("127.0.0.1:9501");
/// server.run(|_| receive_fn(|_, conn, message| Ok(conn.send(message)?)))?;
/// # Ok::<(), tine::Error>(())
/// ```
pub fn receive_fn<F>(receive: F) -> impl Handler
where
    F: FnMut(&mut Context<'_>, &mut Conn<'_>, &[u8]) -> Result,
{
    ReceiveFn(receive)
}

struct ReceiveFn<F>(F);

impl<F> Handler for ReceiveFn<F>
where
    F: FnMut(&mut Context<'_>, &mut Conn<'_>, &[u8]) -> Result,
{
    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result {
        (self.0)(cx, conn, message)
    }
}
