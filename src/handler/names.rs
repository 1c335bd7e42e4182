//! The names of the groups that a connection is in: in its master, in the frames that carry them, in the worker.

use crate::config::MOST_NAME;

/// A list of names, each behind its length: the form in which a frame carries them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Names(Vec<u8>);

// A length is one byte.
const _: () = assert!(MOST_NAME <= u8::MAX as usize);

impl Names {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes a list from a frame in place of its own.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.iter().any(|it| it == name)
    }

    /// Adds a name, of at most [`MOST_NAME`] bytes, that is not in the list.
    pub(crate) fn push(&mut self, name: &[u8]) {
        debug_assert!(name.len() <= MOST_NAME && !self.contains(name));
        self.0.push(name.len() as u8);
        self.0.extend_from_slice(name);
    }

    /// Removes a name. Returns whether it was in the list.
    pub(crate) fn remove(&mut self, name: &[u8]) -> bool {
        let mut rest = self.iter();
        loop {
            let start = self.0.len() - rest.0.len();
            match rest.next() {
                Some(found) if found == name => {
                    let end = start + 1 + name.len();
                    self.0.drain(start..end);
                    return true;
                }
                Some(_) => {}
                None => return false,
            }
        }
    }
}

/// The names of a list, in its order. Bytes that are none end it.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        self.0 = rest;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(names: &Names) -> Vec<&[u8]> {
        names.iter().collect()
    }

    #[test]
    fn names_are_kept_in_order_and_removed_one_by_one() {
        let longest = [7; MOST_NAME];
        let mut names = Names::default();
        for name in [&b"a"[..], b"", &longest, b"ab"] {
            names.push(name);
        }
        assert_eq!(all(&names), [&b"a"[..], b"", &longest, b"ab"]);
        assert!(names.contains(b"") && !names.contains(b"b"));
        assert!(names.remove(b"") && !names.remove(b""));
        let mut copy = Names::default();
        copy.fill(names.as_bytes());
        assert_eq!(all(&copy), [&b"a"[..], &longest, b"ab"]);
        assert!(copy.remove(b"ab") && copy.remove(b"a") && copy.remove(&longest));
        assert!(copy.is_empty());
    }

    #[test]
    fn bytes_that_are_no_name_end_a_list() {
        let mut names = Names::default();
        names.fill(&[1, b'x', 200, b'y']);
        assert_eq!(all(&names), [b"x"]);
        assert!(!names.remove(b"y"));
    }
}
