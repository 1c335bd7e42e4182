//! How many files one process may be sending at once: each is a descriptor, as each client is.

use super::limits::FILES_AT_ONCE;

/// The most files, and the descriptors that a process may need with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Files {
    pub(super) most: usize,
    pub(super) needed: u64,
}

/// Returns as many files as connections, if the limit of descriptors, `allowed`, has room for them beside the `needed`
/// others. A server that has set the limit low shares an eighth of it: accept waits then while files take the place of
/// clients. `writers` is the number of worker processes that send files to this one.
pub(super) fn files(allowed: u64, needed: u64, connections: usize, writers: usize) -> Files {
    let ahead = (writers * 2 * FILES_AT_ONCE) as u64;
    let left = allowed.saturating_sub(needed + ahead);
    let most = left.max(needed / 8).min(connections as u64);
    let most = most.max(FILES_AT_ONCE as u64);
    Files {
        most: most as usize,
        needed: (needed + most + ahead).min(allowed).max(needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_can_have_a_file_where_the_limit_allows_it() {
        let expected = Files {
            most: 65_536,
            needed: 66_000 + 65_536 + 320,
        };
        assert_eq!(files(1 << 20, 66_000, 65_536, 10), expected);
        assert_eq!(files(u64::MAX, 66_000, 65_536, 10), expected);
        assert_eq!(files(70_320, 66_000, 65_536, 10).most, 8250);
        assert_eq!(files(90_320, 66_000, 65_536, 10).most, 24_000);
    }

    #[test]
    fn what_is_needed_without_files_is_never_less() {
        for allowed in [0, 100, 200, 10_000] {
            let files = files(allowed, 200, 20, 4);
            assert!(files.needed >= 200 && files.needed <= allowed.max(200));
            assert!(files.most >= FILES_AT_ONCE);
        }
    }
}
