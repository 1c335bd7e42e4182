//! Groups: the connections of one owner by the names of the groups that they are in, and what is published to them.
//!
//! Its one rule: what is published has one copy, however many members get it. The members whose sockets take it at
//! once need none, and those that are slow share it.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::budget::{Budget, Share};
use crate::config::charge;
use crate::conn_id::ConnId;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Publish;

/// The most members that are found by a look at each of them.
const FEW: usize = 16;

/// What a member counts against the credit between two owners.
const MEMBER_CHARGE: usize = 64;

/// What a system call counts as work of a turn: as the copy of so many bytes.
const SEND_WORK: usize = 512;

/// Returns the memory of one connection in one group, as it counts against the bytes that are kept. It is enough for
/// groups of one member, which take most: the name at the connection, here and in the census, and their entries in
/// tables. Of 200,000 such groups with names of 8 to 128 bytes each took 112 to 400 bytes, without the census; of a large
/// group, each member 65 to 177.
pub(crate) fn member_bytes(name: &[u8]) -> usize {
    384 + 3 * name.len()
}

/// The groups of one owner, each with at least one member.
#[derive(Default, Debug)]
pub(crate) struct Groups(HashMap<Box<[u8]>, Members>);

/// The members of a group.
#[derive(Default, Debug)]
struct Members {
    /// In a row, since each of them is visited for what is published.
    list: Vec<ConnId>,
    /// The place of each in the list, once there are more than a [`FEW`].
    #[expect(clippy::box_collection, reason = "most groups are small and have none")]
    places: Option<Box<HashMap<ConnId, usize>>>,
}

impl Groups {
    /// A connection, which is no member of it, joins a group.
    pub(crate) fn join(&mut self, name: &[u8], id: ConnId) {
        match self.0.get_mut(name) {
            Some(members) => members.add(id),
            None => self.0.entry(name.into()).or_default().add(id),
        }
    }

    /// A connection leaves a group.
    pub(crate) fn leave(&mut self, name: &[u8], id: ConnId) {
        if let Some(members) = self.0.get_mut(name) {
            members.remove(id);
            if members.list.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// Returns the number of members of a group.
    pub(crate) fn size(&self, name: &[u8]) -> usize {
        self.0.get(name).map_or(0, |members| members.list.len())
    }

    /// Lends the list of a group's members, until [`give_back`](Self::give_back). Nothing joins or leaves meanwhile.
    pub(crate) fn lend(&mut self, name: &[u8]) -> Vec<ConnId> {
        let members = self.0.get_mut(name);
        members.map_or_else(Vec::new, |members| mem::take(&mut members.list))
    }

    pub(crate) fn give_back(&mut self, name: &[u8], list: Vec<ConnId>) {
        if let Some(members) = self.0.get_mut(name) {
            members.list = list;
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Members {
    fn add(&mut self, id: ConnId) {
        let place = self.list.len();
        self.list.push(id);
        if let Some(places) = &mut self.places {
            places.insert(id, place);
        } else if self.list.len() > FEW {
            let places = self.list.iter().enumerate();
            let places = places.map(|(place, id)| (*id, place)).collect();
            self.places = Some(Box::new(places));
        }
    }

    fn remove(&mut self, id: ConnId) {
        let place = match &mut self.places {
            Some(places) => places.remove(&id),
            None => self.list.iter().position(|it| *it == id),
        };
        let Some(place) = place else { return };
        self.list.swap_remove(place);
        if let (Some(places), Some(moved)) = (&mut self.places, self.list.get(place)) {
            places.insert(*moved, place);
        }
        if self.list.capacity() > 4 * self.list.len() + FEW {
            self.list.shrink_to(2 * self.list.len());
            if let Some(places) = &mut self.places {
                places.shrink_to(2 * self.list.len());
            }
        }
    }
}

/// What a callback has published to a group.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Publication {
    /// The name of the group, and what its members get.
    body: Vec<u8>,
    name: usize,
    pub(crate) except: Option<ConnId>,
    pub(crate) is_lossy: bool,
    /// How many members the group had.
    members: usize,
}

impl Publication {
    /// Copies what a callback has published: the name of the group, and the bytes behind it.
    pub(crate) fn copy_of(publish: Publish, bytes: SharedBytes<'_>) -> Publication {
        let mut body = Vec::with_capacity(bytes.len());
        bytes.append_to(&mut body);
        Publication {
            name: usize::from(publish.name).min(body.len()),
            body,
            except: publish.except,
            is_lossy: publish.is_lossy,
            members: 0,
        }
    }

    pub(crate) fn for_members(self, members: usize) -> Arc<Publication> {
        Arc::new(Publication { members, ..self })
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.body[..self.name]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body[self.name..]
    }

    /// Returns what it counts on its way between two owners: its members too, so that callbacks which publish to
    /// many are held back before the members are late.
    pub(crate) fn charge(&self) -> usize {
        charge(self.body.len()) + self.members * MEMBER_CHARGE
    }

    /// Returns what it counts as work of a turn for so many members.
    pub(crate) fn work(&self, members: usize) -> usize {
        members * (self.bytes().len() + SEND_WORK)
    }

    #[cfg(test)]
    pub(crate) fn example(bytes: &[u8]) -> Arc<Publication> {
        let publish = Publish {
            name: 0,
            except: None,
            is_lossy: false,
        };
        Publication::copy_of(publish, SharedBytes::of(bytes)).for_members(0)
    }
}

/// What was published, for the connections of one owner whose sockets did not take it. It counts once against the
/// budget, until the last of them has it.
#[derive(Clone, Debug)]
pub(crate) struct SharedCopy(Arc<Held>);

#[derive(Debug)]
struct Held {
    publication: Arc<Publication>,
    _share: Share,
}

impl SharedCopy {
    pub(crate) fn new(publication: &Arc<Publication>, budget: &mut Budget) -> SharedCopy {
        SharedCopy(Arc::new(Held {
            publication: Arc::clone(publication),
            _share: budget.take_shared(publication.bytes().len()),
        }))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.publication.bytes()
    }

    /// Returns how many connections hold it.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Returns a number that no other copy has meanwhile.
    pub(crate) fn number(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::num::NonZeroU32;

    fn id(number: u32) -> ConnId {
        ConnId::new(0, number, NonZeroU32::MIN)
    }

    proptest! {
        /// In every history, a group has exactly the members that have joined and not left.
        #[test]
        fn a_group_has_its_members(
            steps in prop::collection::vec((any::<bool>(), 0..3u8, 0..60u32), 0..400),
        ) {
            let mut groups = Groups::default();
            let mut model: BTreeMap<u8, BTreeSet<ConnId>> = BTreeMap::new();
            for (joins, group, number) in steps {
                let (name, members) = ([group], model.entry(group).or_default());
                match joins {
                    true if members.insert(id(number)) => groups.join(&name, id(number)),
                    true => {}
                    false => {
                        members.remove(&id(number));
                        groups.leave(&name, id(number));
                    }
                }
                prop_assert_eq!(groups.size(&name), members.len());
                let list = groups.lend(&name);
                prop_assert_eq!(list.len(), members.len());
                prop_assert_eq!(&list.iter().copied().collect::<BTreeSet<_>>(), &*members);
                groups.give_back(&name, list);
            }
            let is_empty = model.values().all(BTreeSet::is_empty);
            prop_assert_eq!(groups.is_empty(), is_empty);
        }
    }

    #[test]
    fn a_copy_counts_once_until_the_last_has_it() {
        let mut budget = Budget::new(usize::MAX);
        let copy = SharedCopy::new(&Publication::example(&[7; 1000]), &mut budget);
        let others = [copy.clone(), copy.clone(), copy.clone()];
        assert_eq!((budget.shared(), copy.holders()), (1000, 4));
        drop(copy);
        assert_eq!(budget.shared(), 1000);
        drop(others);
        assert_eq!(budget.shared(), 0);
    }
}
