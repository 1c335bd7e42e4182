//! The title of a process: the command line that `ps` and `pkill -f` see, prctl(2), PR_SET_MM_MAP.
//!
//! Its one rule: the arguments themselves stay as they are, since the program may read them later. The kernel is
//! told another place instead. Where it refuses that, the title stays as it was: nothing depends on it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most bytes of the arguments that a title ends with.
const MOST_ARGUMENTS: usize = 400;

/// The command line of the program, before the first title.
#[derive(Default)]
struct Original {
    /// Where the kernel finds it.
    place: Option<(u64, u64)>,
    text: String,
    /// The title of now, in the place that the kernel was told.
    title: Vec<u8>,
}

static ORIGINAL: Mutex<Original> = Mutex::new(Original {
    place: None,
    text: String::new(),
    title: Vec::new(),
});

fn original() -> MutexGuard<'static, Original> {
    ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes `title` the title of this process, followed by its arguments.
pub(crate) fn set(title: &str) -> io::Result<()> {
    let mut original = original();
    let map = Map::of_this_process()?;
    if original.place.is_none() {
        let arguments = std::fs::read("/proc/self/cmdline")?;
        let shown = &arguments[..arguments.len().min(MOST_ARGUMENTS)];
        let text = String::from_utf8_lossy(shown).replace('\0', " ");
        original.text = text.trim_end().to_owned();
        original.place = Some((map.arg_start, map.arg_end));
    }
    let mut title = format!("{title}: {}", original.text).into_bytes();
    title.push(0);
    let start = title.as_ptr() as u64;
    let moved = map.moved_to(start, start + title.len() as u64);
    if moved.is_ok() {
        // The one before is not read any more.
        original.title = title;
    }
    moved
}

/// Gives this process its command line back.
///
/// # Race condition
/// The kernel is told the end of the heap as well, and another thread may have moved it since it was read. Then the
/// kernel refuses to let the heap grow, since memory is there already, and malloc(3) uses mmap(2) from then on.
pub(crate) fn restore() -> io::Result<()> {
    let mut original = original();
    if let Some((start, end)) = original.place.take() {
        Map::of_this_process()?.moved_to(start, end)?;
        original.title = Vec::new();
    }
    Ok(())
}

/// `struct prctl_mm_map` of `linux/prctl.h`.
#[repr(C)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

impl Map {
    /// Reads it from the fields of proc_pid_stat(5).
    fn of_this_process() -> io::Result<Map> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // The name of the program may have spaces and parentheses. Field 3 is the first behind it.
        let fields: Vec<&str> = match stat.rsplit_once(')') {
            Some((_, fields)) => fields.split_whitespace().collect(),
            None => Vec::new(),
        };
        let field = |number: usize| {
            let field = fields.get(number - 3).and_then(|field| field.parse().ok());
            field.ok_or(io::ErrorKind::InvalidData)
        };
        // SAFETY: moves the end of the heap by nothing, and returns it.
        let brk = unsafe { libc::sbrk(0) } as u64;
        Ok(Map {
            start_code: field(26)?,
            end_code: field(27)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            brk,
            start_stack: field(28)?,
            arg_start: field(48)?,
            arg_end: field(49)?,
            env_start: field(50)?,
            env_end: field(51)?,
            auxv: 0,
            auxv_size: 0,
            exe_fd: u32::MAX,
        })
    }

    /// Tells the kernel that the arguments are there.
    fn moved_to(self, arg_start: u64, arg_end: u64) -> io::Result<()> {
        let map = Map {
            arg_start,
            arg_end,
            ..self
        };
        let size = size_of::<Map>();
        // SAFETY: the kernel reads `size` bytes from `map`, which has as many. It follows none of the addresses
        // but to show bytes to readers of /proc; all but two are what they were.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_MM,
                libc::PR_SET_MM_MAP,
                &raw const map,
                size,
                0,
            )
        };
        match set {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
