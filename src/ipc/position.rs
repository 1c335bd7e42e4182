//! The arithmetic of positions in a ring, without the ring.
//!
//! A position counts bytes since the ring was made and never wraps. Both ends, in the reactor and in
//! the worker, use these functions, and the reactor uses them on numbers that a hostile worker chose:
//! its one rule is that every function is total, for any numbers whatever.

/// Every frame begins at a multiple of this, and so does its body: a cache line. It is not only for
/// neatness: the kernel copies a large body to or from a socket several times slower when its
/// address is a few bytes past that of the page at the other end.
pub(crate) const ALIGN: u64 = 64;

/// An empty ring is rewound when it has been filled this far. Few frames at a time then use the same
/// few pages again and again, which stay in the cache.
pub(super) const WORN: u64 = 16 << 10;

/// Rings are not rewound past this position: rewinding uses up positions many times faster than
/// frames do, with long rings in weeks. The positions that are left then outlast any machine.
pub(super) const SPENT: u64 = 1 << 62;

/// The bytes that a frame of `len` bytes takes.
pub(crate) const fn aligned(len: usize) -> u64 {
    (len as u64).next_multiple_of(ALIGN)
}

/// Where in the memory of a ring a position is. `capacity` is a power of two.
pub(crate) const fn offset(position: u64, capacity: u64) -> u64 {
    position & (capacity - 1)
}

/// How many bytes can be staged in a ring that is filled from `head` to `tail`.
pub(super) const fn free(head: u64, tail: u64, capacity: u64) -> u64 {
    capacity.saturating_sub(tail.saturating_sub(head))
}

/// Whether rewinding a ring pays that is empty at `position`.
pub(super) const fn is_worn(position: u64, capacity: u64) -> bool {
    offset(position, capacity) >= WORN && position < SPENT
}

/// Where a ring that is empty at `position` goes on when it is rewound: at its first byte, and farther
/// on than any mark that can be published otherwise, so that the mark alone tells.
pub(super) const fn rewound(position: u64, capacity: u64) -> u64 {
    let round = position - offset(position, capacity);
    round.saturating_add(2 * capacity)
}

/// Whether the producer has rewound a ring that was empty at `head`, given the mark that it
/// published since.
pub(super) const fn is_rewound(mark: u64, head: u64, capacity: u64) -> bool {
    mark.wrapping_sub(head) > capacity
}

/// Whether a producer that keeps to the protocol can publish `mark` after `tail`, in a ring that is
/// emptied up to `head`.
pub(super) const fn follows(mark: u64, head: u64, tail: u64, capacity: u64) -> bool {
    mark >= tail && mark.wrapping_sub(head) <= capacity && mark.is_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    //! All positions of short rings, at the beginning, where rewinding ends, and at the end of all
    //! numbers, against definitions in numbers that can't overflow.

    use super::*;

    /// Short rings, and where each of them may be.
    fn rings() -> impl Iterator<Item = (u64, u64)> {
        let capacities = (6..=10).map(|bits| 1_u64 << bits);
        capacities.flat_map(|capacity| {
            let top = u64::MAX - (ALIGN - 1);
            let starts = [0, SPENT - 2 * capacity, top - 3 * capacity];
            let positions = starts
                .map(|start| (start..=start.saturating_add(3 * capacity)).step_by(ALIGN as usize));
            positions
                .into_iter()
                .flatten()
                .map(move |position| (capacity, position))
        })
    }

    /// The numbers near a position that a liar might choose, and the far ones.
    fn numbers_near(position: u64, capacity: u64) -> impl Iterator<Item = u64> {
        let near = position.saturating_sub(2 * capacity)..=position.saturating_add(2 * capacity);
        let far = [0, 1, ALIGN, SPENT, 1 << 63, u64::MAX - 63, u64::MAX];
        near.step_by(8).chain(far)
    }

    #[test]
    fn the_bytes_of_a_frame_are_the_fewest_lines_that_hold_it() {
        for len in 0..=1024 {
            let lines = aligned(len);
            assert!(lines.is_multiple_of(ALIGN) && lines >= len as u64);
            assert!(lines < len as u64 + ALIGN);
        }
    }

    #[test]
    fn a_position_has_a_place_that_it_shares_with_those_of_other_rounds_alone() {
        for (capacity, position) in rings() {
            let place = offset(position, capacity);
            assert!(place < capacity);
            assert_eq!(
                u128::from(place),
                u128::from(position) % u128::from(capacity)
            );
        }
    }

    #[test]
    fn what_is_free_and_what_is_filled_are_the_ring() {
        for (capacity, head) in rings() {
            for filled in (0..=capacity).step_by(ALIGN as usize) {
                if let Some(tail) = head.checked_add(filled) {
                    assert_eq!(free(head, tail, capacity), capacity - filled);
                }
            }
        }
    }

    #[test]
    fn a_mark_is_good_from_the_last_one_on_as_far_as_the_ring_has_room() {
        for (capacity, head) in rings() {
            for filled in (0..=capacity).step_by(ALIGN as usize) {
                let Some(tail) = head.checked_add(filled) else {
                    continue;
                };
                let end = u128::from(head) + u128::from(capacity);
                for mark in numbers_near(tail, capacity) {
                    let range = u128::from(tail)..=end;
                    let is_good = range.contains(&u128::from(mark)) && mark % ALIGN == 0;
                    assert_eq!(
                        follows(mark, head, tail, capacity),
                        is_good,
                        "{mark} after {head}..{tail} of {capacity}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_ring_that_is_rewound_goes_on_at_its_first_byte_where_no_other_mark_can_be() {
        for (capacity, position) in rings().filter(|(_, position)| *position < SPENT) {
            let start = rewound(position, capacity);
            assert_eq!(start % capacity, 0);
            // A ring that is not rewound is published up to here at most.
            assert!(start > position + capacity);
            for staged in (0..=capacity).step_by(ALIGN as usize) {
                let (near, far) = (position + staged, start + staged);
                assert!(
                    !is_rewound(near, position, capacity),
                    "{near} from {position}"
                );
                assert!(is_rewound(far, position, capacity), "{far} from {position}");
                // The consumer that follows finds the mark good.
                assert!(follows(far, start, start, capacity));
            }
        }
    }

    #[test]
    fn both_ends_rewind_a_ring_to_the_same_place_and_never_back() {
        for (capacity, position) in rings() {
            let start = rewound(position, capacity);
            assert!(start > position || start == u64::MAX, "{position}");
            // It depends on the round alone.
            assert_eq!(start, rewound(position - position % capacity, capacity));
        }
    }

    #[test]
    fn a_ring_is_worn_when_it_is_filled_far_enough_and_positions_are_left() {
        let capacity = 4 * WORN;
        for round in [0, capacity, SPENT - capacity] {
            for place in (0..capacity).step_by(ALIGN as usize) {
                assert_eq!(is_worn(round + place, capacity), place >= WORN);
            }
        }
        for position in [SPENT, SPENT + WORN, SPENT + capacity - ALIGN, u64::MAX - 63] {
            assert!(!is_worn(position, capacity), "{position}");
        }
        assert!(
            (0..WORN).all(|position| !is_worn(position, WORN)),
            "too short"
        );
    }

    #[test]
    fn no_numbers_are_too_much() {
        let numbers = [0, 1, 63, 64, SPENT, u64::MAX - 1, u64::MAX];
        for capacity in [64, 1 << 40, 1 << 62] {
            for a in numbers {
                for b in numbers {
                    for c in numbers {
                        follows(a, b, c, capacity);
                    }
                    is_rewound(a, b, capacity);
                    assert!(free(a, b, capacity) <= capacity);
                }
                is_worn(a, capacity);
                rewound(a, capacity);
            }
        }
    }
}
