//! Bytes that no codec can shorten, the same in every run.

/// Goes on where it stopped: no two pieces are alike.
pub struct Noise {
    state: u64,
}

impl Noise {
    pub fn new() -> Noise {
        Noise {
            state: 0x9E37_79B9_7F4A_7C15,
        }
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// Xorshift, of which the upper half is better mixed.
    fn byte(&mut self) -> u8 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 32) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_about_as_often_and_pieces_differ() {
        let mut noise = Noise::new();
        let (first, second) = (noise.bytes(1 << 16), noise.bytes(1 << 16));
        assert_ne!(first, second);
        assert_eq!(first, Noise::new().bytes(1 << 16));
        for byte in 0..=u8::MAX {
            let count = first.iter().filter(|it| **it == byte).count();
            assert!((128..512).contains(&count), "{byte} comes {count} times");
        }
    }
}
