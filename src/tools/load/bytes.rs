//! What clients send, and how it is known again: a stream of bytes that does not repeat soon, the same
//! for all, in which each client begins elsewhere.

/// The stream repeats after so many bytes: a prime, so that no message size is in step with it but
/// its multiples.
const PERIOD: usize = 65_521;

/// The most bytes that are sent or compared at once.
pub(super) const PIECE: usize = 256 << 10;

/// The stream, and its beginning again, so that each piece is in one part.
pub(super) struct Stream {
    bytes: Vec<u8>,
}

impl Stream {
    pub(super) fn new() -> Stream {
        // xorshift64: any bytes will do that look like no others.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let period: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(PERIOD)
        .collect();
        let bytes = period.iter().copied().cycle().take(PERIOD + PIECE);
        Stream {
            bytes: bytes.collect(),
        }
    }

    /// `len` bytes from a place in a client's stream, at most [`PIECE`].
    pub(super) fn at(&self, client: usize, place: u64, len: usize) -> &[u8] {
        let begin = (client.wrapping_mul(7919) as u64 % PERIOD as u64 + place % PERIOD as u64)
            % PERIOD as u64;
        let begin = begin as usize;
        &self.bytes[begin..begin + len.min(PIECE)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_on_where_it_was_left() {
        let stream = Stream::new();
        let whole: Vec<u8> = stream.at(3, 0, PIECE).to_vec();
        let mut pieces = Vec::new();
        while pieces.len() < whole.len() {
            let piece = stream.at(
                3,
                pieces.len() as u64,
                7_777.min(whole.len() - pieces.len()),
            );
            pieces.extend_from_slice(piece);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn clients_have_other_bytes() {
        let stream = Stream::new();
        let first: Vec<&[u8]> = (0..1000).map(|client| stream.at(client, 0, 16)).collect();
        let mut different = first.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), first.len());
    }

    #[test]
    fn no_message_size_is_in_step_with_it() {
        let stream = Stream::new();
        for size in [64, 4096, 65_536, 1 << 20] {
            let one = stream.at(0, 0, 64);
            assert_ne!(one, stream.at(0, size, 64), "{size}");
        }
    }
}
