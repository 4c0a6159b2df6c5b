//! What a mask leaves of a key: the words it has bits in, gathered, masked and hashed.

use crate::model::key::{KEY_WORDS, Key};

/// The words a mask has bits in: their number, and where they are.
pub(super) fn words_of(mask: &Key) -> impl Iterator<Item = usize> {
    mask.words.iter().enumerate().filter(|&(_, &word)| word != 0).map(|(at, _)| at)
}

/// A mask over at most `W` words.
#[derive(Debug)]
pub(super) struct Projection<const W: usize> {
    /// Where the words are. Those beyond the mask's own are word 0 under an empty mask: always 0.
    at: [u8; W],
    mask: [u64; W],
    secrets: Secrets,
}

/// What keeps an application's peers from choosing packets that all hash alike: one word for each that is
/// hashed, and one for the end.
pub(super) type Secrets = [u64; KEY_WORDS + 1];

/// Secrets from a seed (splitmix64).
pub(super) fn secrets(seed: u64) -> Secrets {
    let mut state = seed;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

impl<const W: usize> Projection<W> {
    /// For a mask of at most `W` words; further ones would be ignored.
    pub(super) fn new(mask: &Key, secrets: &Secrets) -> Self {
        let mut at = [0; W];
        let mut masks = [0; W];
        for (n, word) in words_of(mask).take(W).enumerate() {
            at[n] = word as u8;
            masks[n] = mask.words[word];
        }
        Projection { at, mask: masks, secrets: *secrets }
    }

    /// The masked words.
    #[inline(always)]
    pub(super) fn gather(&self, key: &Key) -> [u64; W] {
        std::array::from_fn(|n| key.words[usize::from(self.at[n])] & self.mask[n])
    }

    /// A hash of gathered words.
    #[inline(always)]
    pub(super) fn hash(&self, words: &[u64; W]) -> u64 {
        hash(words, &self.secrets)
    }
}

/// NH of UMAC (RFC 4418 §5.2.2, with 64-bit words): sums of words and secrets, multiplied in pairs and added
/// up. Over the secrets, two inputs have the same sum with a chance of 2^-64, and the multiplications do not
/// wait for one another. Sums that differ need not look random, hence the last multiplication.
#[inline(always)]
pub(super) fn hash(words: &[u64], secrets: &Secrets) -> u64 {
    let mut sum = 0u128;
    for (pair, secret) in words.chunks(2).zip(secrets.chunks_exact(2)) {
        let first = pair[0].wrapping_add(secret[0]);
        let second = pair.get(1).copied().unwrap_or(0).wrapping_add(secret[1]);
        sum = sum.wrapping_add(u128::from(first) * u128::from(second));
    }
    fold(sum as u64 ^ (sum >> 64) as u64, secrets[KEY_WORDS])
}

/// Multiplies, and folds the product's halves together.
#[inline(always)]
pub(super) fn fold(word: u64, secret: u64) -> u64 {
    let product = u128::from(word) * u128::from(secret | 1);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(words: &[(usize, u64)]) -> Key {
        let mut key = Key::default();
        for &(at, word) in words {
            key.words[at] = word;
        }
        key
    }

    #[test]
    fn gathers_only_what_the_mask_has_bits_in() {
        let mask = key(&[(2, 0xff), (9, u64::MAX), (23, 0xf0)]);
        assert_eq!(words_of(&mask).collect::<Vec<_>>(), [2, 9, 23]);
        let projection = Projection::<4>::new(&mask, &secrets(1));
        let gathered = projection.gather(&Key { words: [0x1234; KEY_WORDS] });
        assert_eq!(gathered, [0x34, 0x1234, 0x30, 0], "the fourth pads");
    }

    #[test]
    fn hashes_of_near_inputs_spread_over_buckets() {
        let secrets = secrets(7);
        for (bits, shift) in [(12, 0), (12, 16), (12, 52)] {
            let mut buckets = vec![0u32; 1 << bits];
            for n in 0..1u64 << (bits + 2) {
                let hash = hash(&[n << shift, 5, 0, n ^ 0xabc], &secrets);
                buckets[hash as usize & ((1 << bits) - 1)] += 1;
            }
            let most = buckets.iter().max().copied().unwrap_or(0);
            assert!(most < 20, "{most} of 4 on average, at shift {shift}");
        }
    }

    #[test]
    fn seeds_change_hashes() {
        assert_ne!(hash(&[1, 2, 3], &secrets(1)), hash(&[1, 2, 3], &secrets(2)));
        assert_ne!(hash(&[1, 2, 3], &secrets(1)), hash(&[1, 3, 2], &secrets(1)));
    }
}
