//! The kernel's count of OOM kills in this process's cgroup, cgroups(7): it explains a worker that was
//! ended by a SIGKILL which no process has sent.

use std::fs;
use std::path::{Path, PathBuf};

/// The count of OOM kills in the cgroup that this process was in at the start.
pub(crate) struct OomKills {
    /// The file with the count, if there is one.
    file: Option<PathBuf>,
    last: u64,
}

impl OomKills {
    /// Finds the count. Without one, no death is explained.
    pub(crate) fn new() -> OomKills {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (cgroup, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
        let file = candidates(&cgroup, &mounts)
            .into_iter()
            .find(|file| read_count(file).is_some());
        OomKills::of(file)
    }

    fn of(file: Option<PathBuf>) -> OomKills {
        let last = file.as_deref().and_then(read_count).unwrap_or(0);
        OomKills { file, last }
    }

    /// Takes one kill that has not explained a death yet. Returns whether there was one.
    pub(crate) fn explains_one(&mut self) -> bool {
        let has_more = self.count().is_some_and(|now| now > self.last);
        self.last += u64::from(has_more);
        has_more
    }

    /// Drops the kills that have not explained a death: they were of other processes.
    pub(crate) fn forget_the_rest(&mut self) {
        self.last = self.count().unwrap_or(self.last);
    }

    fn count(&self) -> Option<u64> {
        self.file.as_deref().and_then(read_count)
    }
}

fn read_count(file: &Path) -> Option<u64> {
    parse_count(&fs::read_to_string(file).ok()?)
}

/// The same line in `memory.events` (version 2) and in `memory.oom_control` (version 1).
fn parse_count(text: &str) -> Option<u64> {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count?.trim().parse().ok()
}

/// Returns the files that may have the count, the likeliest first. A machine may have both versions
/// mounted; the memory controller is in one of them.
fn candidates(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    let mut found = Vec::new();
    for line in cgroup.lines() {
        // ID:CONTROLLERS:PATH; for version 2 it is 0::PATH.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (kind, option, file) = match controllers {
            "" => ("cgroup2", None, "memory.events"),
            _ if has(controllers, "memory") => ("cgroup", Some("memory"), "memory.oom_control"),
            _ => continue,
        };
        for mount in &mounts {
            if mount.kind == kind && option.is_none_or(|option| has(mount.options, option)) {
                found.extend(mount.folders_of(path).map(|folder| folder.join(file)));
            }
        }
    }
    found
}

/// Whether a comma-separated list has an item.
fn has(list: &str, wanted: &str) -> bool {
    list.split(',').any(|item| item == wanted)
}

/// A line of mountinfo, proc_pid_mountinfo(5).
struct Mount<'a> {
    /// The part of the file system that is mounted: a container sees only its part of the tree.
    root: String,
    point: String,
    kind: &'a str,
    /// The options of the file system: for version 1, the controllers.
    options: &'a str,
}

impl Mount<'_> {
    fn parse(line: &str) -> Option<Mount<'_>> {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Mount {
            root: unescape(place.next()?),
            point: unescape(place.next()?),
            kind: system.next()?,
            options: system.nth(1)?,
        })
    }

    /// Returns the folder of a cgroup, and that of the mount, as the cgroup may not be visible from here.
    fn folders_of(&self, cgroup: &str) -> impl Iterator<Item = PathBuf> {
        let below = Path::new(cgroup).strip_prefix(&self.root).ok();
        let folder = below.map(|below| Path::new(&self.point).join(below));
        let whole = PathBuf::from(&self.point);
        folder.into_iter().chain([whole])
    }
}

/// Decodes a path of mountinfo: space, tab, newline and backslash are three octal digits there.
fn unescape(field: &str) -> String {
    let codes = [
        (r"\040", " "),
        (r"\011", "\t"),
        (r"\012", "\n"),
        (r"\134", r"\"),
    ];
    let unescaped = |text: String, (code, plain)| text.replace(code, plain);
    codes.into_iter().fold(field.to_owned(), unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(cgroup: &str, mountinfo: &str) -> Vec<String> {
        let found = candidates(cgroup, mountinfo);
        found
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn version_2_counts_in_the_service() {
        let mountinfo = "22 27 0:21 / /proc rw - proc proc rw\n\
                         31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            paths("0::/system.slice/tine.service\n", mountinfo),
            [
                "/sys/fs/cgroup/system.slice/tine.service/memory.events",
                "/sys/fs/cgroup/memory.events"
            ]
        );
    }

    const BOTH: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn with_both_versions_mounted_both_are_looked_at() {
        let cgroup = "8:pids:/\n4:memory:/api/4a43\n1:cpu:/\n0::/\n";
        assert_eq!(
            paths(cgroup, BOTH),
            [
                "/sys/fs/cgroup/memory/api/4a43/memory.oom_control",
                "/sys/fs/cgroup/memory/memory.oom_control",
                "/sys/fs/cgroup/unified/memory.events",
                "/sys/fs/cgroup/unified/memory.events"
            ]
        );
    }

    #[test]
    fn a_container_sees_its_part_of_the_tree_as_the_whole() {
        let mountinfo =
            "99 90 0:32 /docker/f00 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(
            paths("4:memory:/docker/f00/x\n", mountinfo)[0],
            "/sys/fs/cgroup/memory/x/memory.oom_control"
        );
        assert_eq!(
            paths("4:memory:/elsewhere\n", mountinfo),
            ["/sys/fs/cgroup/memory/memory.oom_control"]
        );
    }

    #[test]
    fn controllers_that_share_a_mount_are_told_apart() {
        let mountinfo = "32 31 0:29 / /cg/cpu,memory rw - cgroup cgroup rw,cpu,memory\n\
                         33 31 0:30 / /cg/memory2 rw - cgroup cgroup rw,memory2\n";
        assert_eq!(
            paths("4:cpu,memory:/\n", mountinfo)[0],
            "/cg/cpu,memory/memory.oom_control"
        );
        assert!(paths("4:memory2:/\n", mountinfo).is_empty());
    }

    #[test]
    fn a_mount_point_may_hold_a_space() {
        let mountinfo = r"31 23 0:28 / /my\040groups\134 rw - cgroup2 cgroup2 rw";
        assert_eq!(paths("0::/", mountinfo)[0], r"/my groups\/memory.events");
    }

    #[test]
    fn the_count_is_the_line_of_that_name() {
        let events = "low 0\nhigh 12\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(parse_count(events), Some(2));
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
        assert_eq!(parse_count(control), Some(5));
        assert_eq!(parse_count("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn each_kill_explains_one_death() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.events");
        fs::write(&file, "oom_kill 4\n").unwrap();
        let mut kills = OomKills::of(Some(file.clone()));
        assert!(!kills.explains_one());
        fs::write(&file, "oom_kill 6\n").unwrap();
        assert!(kills.explains_one());
        assert!(kills.explains_one());
        assert!(!kills.explains_one());
        fs::write(&file, "oom_kill 9\n").unwrap();
        kills.forget_the_rest();
        assert!(!kills.explains_one());
        fs::remove_file(&file).unwrap();
        assert!(!kills.explains_one());
    }

    #[test]
    fn without_a_count_it_never_grows() {
        let mut kills = OomKills::of(None);
        assert!(!kills.explains_one());
        assert!(!OomKills::new().explains_one());
    }
}
