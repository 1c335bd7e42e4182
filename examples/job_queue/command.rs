//! The commands of beanstalkd's protocol, as bytes and as values.

use tine::{Found, Search};

/// The longest job.
pub(crate) const LONGEST_JOB: usize = 65_535;
/// The longest line, without its end.
pub(crate) const LONGEST_LINE: usize = 224;

/// Finds the end of a command: of its line, and of the job behind the line of a `put`.
pub(crate) fn find(bytes: &[u8], search: &mut Search) -> Found {
    // The first byte of an end may have been the last one of an earlier call.
    let from = search.seen().saturating_sub(1);
    let Some(end) = bytes[from..].windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() <= LONGEST_LINE {
            Found::More
        } else {
            Found::Refused
        };
    };
    let line = &bytes[..from + end];
    let job = match parse(line) {
        // A longer one is refused by its line.
        Ok(Command::Put(_, len)) if len <= LONGEST_JOB => len + 2,
        _ => 0,
    };
    Found::Message(line.len() + 2 + job)
}

/// What a job has beside its bytes. Times are in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) priority: u32,
    pub(crate) delay: u32,
    pub(crate) time_to_run: u32,
}

/// A command. Jobs are named by their numbers.
#[derive(Clone, Copy)]
pub(crate) enum Command<'a> {
    /// A job of this many bytes, which are behind the line.
    Put(Terms, usize),
    Use(&'a str),
    /// Wait for so many seconds, or for as long as it takes.
    Reserve(Option<u32>),
    Delete(u64),
    Release(u64, u32, u32),
    Bury(u64, u32),
    Touch(u64),
    Watch(&'a str),
    Ignore(&'a str),
    Kick(u32),
    Peek(u64),
    StatsJob(u64),
    ListTubeUsed,
    ListTubesWatched,
    Quit,
}

/// The answers to what is no command.
pub(crate) const BAD_FORMAT: &str = "BAD_FORMAT\r\n";
pub(crate) const UNKNOWN_COMMAND: &str = "UNKNOWN_COMMAND\r\n";

/// Returns the command of a line without its end.
///
/// # Errors
/// The answer that says what is wrong.
pub(crate) fn parse(line: &[u8]) -> Result<Command<'_>, &'static str> {
    let line = str::from_utf8(line).map_err(|_| BAD_FORMAT)?;
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let mut word = || words.next().ok_or(BAD_FORMAT);
    let command = match name {
        "put" => {
            let terms = Terms {
                priority: number(word()?)?,
                delay: number(word()?)?,
                // As beanstalkd does: a job has a second at least.
                time_to_run: number::<u32>(word()?)?.max(1),
            };
            Command::Put(terms, number(word()?)?)
        }
        "use" => Command::Use(tube(word()?)?),
        "reserve" => Command::Reserve(None),
        "reserve-with-timeout" => Command::Reserve(Some(number(word()?)?)),
        "delete" => Command::Delete(number(word()?)?),
        "release" => Command::Release(number(word()?)?, number(word()?)?, number(word()?)?),
        "bury" => Command::Bury(number(word()?)?, number(word()?)?),
        "touch" => Command::Touch(number(word()?)?),
        "watch" => Command::Watch(tube(word()?)?),
        "ignore" => Command::Ignore(tube(word()?)?),
        "kick" => Command::Kick(number(word()?)?),
        "peek" => Command::Peek(number(word()?)?),
        "stats-job" => Command::StatsJob(number(word()?)?),
        "list-tube-used" => Command::ListTubeUsed,
        "list-tubes-watched" => Command::ListTubesWatched,
        "quit" => Command::Quit,
        _ => return Err(UNKNOWN_COMMAND),
    };
    words.next().map_or(Ok(command), |_| Err(BAD_FORMAT))
}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, &'static str> {
    let digits = Some(word).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or(BAD_FORMAT)
}

fn tube(name: &str) -> Result<&str, &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-+/;.$_()".contains(&byte);
    let is_name =
        (1..=200).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(is_allowed);
    is_name.then_some(name).ok_or(BAD_FORMAT)
}
