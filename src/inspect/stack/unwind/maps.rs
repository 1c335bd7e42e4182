//! The mappings of code in a process's memory, proc_pid_maps(5).

use std::ops::Range;

/// An executable mapping of a part of a file.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Mapping<'a> {
    pub(super) range: Range<u64>,
    /// The offset of its first byte in the file.
    pub(super) offset: u64,
    /// The file, or [`VDSO`].
    pub(super) path: &'a str,
}

/// The library that the kernel maps into every process; it has no file.
pub(super) const VDSO: &str = "[vdso]";

/// Returns the executable mappings in `/proc/PID/maps`, without an incomplete last line.
pub(super) fn with_code(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    maps.lines().filter_map(parse)
}

fn parse(line: &str) -> Option<Mapping<'_>> {
    // ADDRESSES PERMISSIONS OFFSET DEVICE INODE and, after many spaces, PATH, which may have some.
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = hex(fields.next()?)?;
    let path = fields.nth(2)?.trim_start();
    let has_code = permissions.contains('x') && (path.starts_with('/') || path == VDSO);
    let range = hex(start)?..hex(end)?;
    has_code.then_some(Mapping {
        range,
        offset,
        path,
    })
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_counts() {
        let maps = "\
55d0c8a00000-55d0c8a10000 r--p 00000000 fe:00 1234                       /opt/my app/tine
55d0c8a10000-55d0c8b00000 r-xp 00010000 fe:00 1234                       /opt/my app/tine
55d0c9000000-55d0c9021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7fff1b9e0000-7fff1ba01000 rw-p 00000000 00:00 0                          [stack]
7fff1bb42000-7fff1bb44000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
7f00000";
        let found: Vec<_> = with_code(maps).collect();
        let tine = Mapping {
            range: 0x55d0_c8a1_0000..0x55d0_c8b0_0000,
            offset: 0x10000,
            path: "/opt/my app/tine",
        };
        let vdso = Mapping {
            range: 0x7fff_1bb4_2000..0x7fff_1bb4_4000,
            offset: 0,
            path: VDSO,
        };
        assert_eq!(found, [tine, vdso]);
    }
}
