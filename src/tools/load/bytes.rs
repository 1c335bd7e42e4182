//! The bytes that clients send and expect back: one long stream for all, in which each client begins at
//! a place of its own.

/// The number of bytes after which the stream repeats: a prime, so that only message sizes that are its
/// multiples are in step with it.
const PERIOD: usize = 65_521;

/// Maximum of bytes that are sent or compared at once.
pub(super) const PIECE: usize = 256 << 10;

/// One period of the stream followed by its beginning, so that each piece is contiguous.
pub(super) struct Stream {
    bytes: Vec<u8>,
}

impl Stream {
    pub(super) fn new() -> Stream {
        // xorshift64: any bytes do that repeat nowhere within the period.
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

    /// Returns `len` bytes, at most [`PIECE`], from a place in a client's stream.
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
    fn pieces_of_a_stream_make_the_whole() {
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
    fn each_client_has_different_bytes() {
        let stream = Stream::new();
        let first: Vec<&[u8]> = (0..1000).map(|client| stream.at(client, 0, 16)).collect();
        let mut different = first.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), first.len());
    }

    #[test]
    fn no_message_size_is_in_step_with_the_stream() {
        let stream = Stream::new();
        for size in [64, 4096, 65_536, 1 << 20] {
            let one = stream.at(0, 0, 64);
            assert_ne!(one, stream.at(0, size, 64), "{size}");
        }
    }
}
