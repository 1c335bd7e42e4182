//! How much memory this process may use: the least of its cgroups' limits, RLIMIT_AS and RAM.
//!
//! Its one rule: a limit that can't be read is no limit. A wrong guess must not keep a server from starting.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// A memory limit, and its name for a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    pub(crate) bytes: u64,
    pub(crate) source: &'static str,
}

/// Returns the least limit; `None` if none can be read.
pub(crate) fn room() -> Option<Room> {
    let of_cgroups = cgroups(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    let address_space = getrlimit(Resource::RLIMIT_AS).ok();
    let address_space = address_space
        .map(|(soft, _)| soft)
        .filter(|soft| *soft != libc::RLIM_INFINITY);
    let limits = [
        of_cgroups.map(|bytes| (bytes, "the memory limit of its cgroup")),
        address_space.map(|bytes| (bytes, "the limit of its address space (ulimit -v)")),
        ram().map(|bytes| (bytes, "the machine's memory")),
    ];
    let limits = limits.into_iter().flatten();
    let least = limits.min_by_key(|(bytes, _)| *bytes);
    least.map(|(bytes, source)| Room { bytes, source })
}

fn ram() -> Option<u64> {
    let pages = sysconf(SysconfVar::_PHYS_PAGES).ok()??;
    let size = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    u64::try_from(pages)
        .ok()?
        .checked_mul(u64::try_from(size).ok()?)
}

/// Returns the least limit of the cgroups that `membership` names, cgroups(7), and of those above them. In a container
/// the path may be that of the host, where `mount` shows the container's own cgroup at its root: the root is looked at
/// in any case.
fn cgroups(membership: &Path, mount: &Path) -> Option<u64> {
    let text = fs::read_to_string(membership).ok()?;
    let limits = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => least_up(mount, path, "memory.max"),
            _ if controllers.split(',').any(|it| it == "memory") => {
                least_up(&mount.join("memory"), path, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.min()
}

/// Returns the least number in the files of this name, from the folder of a cgroup up to the mount.
fn least_up(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let inside = path.trim_start_matches('/');
    // A cgroup outside of the namespace begins with "..": it can't be seen from here.
    let inside = match inside.split('/').any(|part| part == "..") {
        true => Path::new(""),
        false => Path::new(inside),
    };
    // The last ancestor is the empty path: the mount itself.
    let folders = inside.ancestors().map(|it| mount.join(it));
    folders.filter_map(|it| limit(it.join(file))).min()
}

/// Reads a limit. Version 2 writes "max" for none, and version 1 a number near 2⁶³.
fn limit(file: PathBuf) -> Option<u64> {
    let bytes: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 62).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files in the place of those of the kernel.
    fn stand_in(membership: &str, files: &[(&str, &str)]) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().join("mount");
        for (path, text) in files {
            let path = mount.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let own = folder.path().join("cgroup");
        fs::write(&own, membership).unwrap();
        cgroups(&own, &mount)
    }

    #[test]
    fn the_least_limit_of_a_cgroup_and_its_ancestors_counts() {
        let own = "0::/system.slice/app.service\n";
        let files = [
            ("system.slice/app.service/memory.max", "max\n"),
            ("system.slice/memory.max", "62914560\n"),
            ("memory.max", "104857600\n"),
        ];
        assert_eq!(stand_in(own, &files), Some(62_914_560));
    }

    #[test]
    fn a_container_whose_mount_is_its_own_cgroup_is_limited() {
        let root = [("memory.max", "62914560\n")];
        for own in ["0::/\n", "0::/docker/0123\n", "0::/../other\n"] {
            assert_eq!(stand_in(own, &root), Some(62_914_560), "{own}");
        }
    }

    #[test]
    fn version_1_has_a_folder_of_its_own_and_a_number_for_no_limit() {
        let own = "5:cpu,cpuacct:/\n4:hugetlb,memory:/a/b\n0::/\n";
        let files = [
            ("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "67108864\n"),
        ];
        assert_eq!(stand_in(own, &files), Some(64 << 20));
        assert_eq!(stand_in(own, &files[..1]), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        assert_eq!(stand_in("", &[]), None);
        assert_eq!(stand_in("nonsense\n0::/a\n", &[]), None);
        assert_eq!(stand_in("0::/a\n", &[("a/memory.max", "lots\n")]), None);
    }

    #[test]
    fn a_process_has_some_room() {
        assert!(room().is_some_and(|room| room.bytes > 1 << 20));
    }
}
