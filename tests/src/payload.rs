//! The records of the round-trip tests, a function of their index alone. `Payload.java` is the same function: what
//! one client writes, the other can check byte for byte without having seen it.

const LARGE_EVERY: u64 = 20_000;
const LARGE_BYTES: usize = 1_000_000;

/// SplitMix64.
pub fn mix(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

pub fn size(index: u64) -> usize {
    if index % LARGE_EVERY == LARGE_EVERY - 1 {
        return LARGE_BYTES;
    }
    let spread = mix(index ^ 0x5151) >> 1;
    let size = match mix(index) % 1000 {
        0..20 => 0,
        20..900 => 1 + spread % 200,
        900..990 => 200 + spread % 1800,
        _ => 2000 + spread % 18_000,
    };
    usize::try_from(size).expect("sizes are small")
}

/// Two records in three are noise, the third repeats itself, so that codecs have something to do.
pub fn value(index: u64) -> Vec<u8> {
    let len = size(index);
    if index.is_multiple_of(3) {
        return (0..len as u64)
            .map(|i| b'a' + ((i + index) % 23) as u8)
            .collect();
    }
    let state = index.wrapping_mul(31);
    let mut value = Vec::with_capacity(len + 8);
    let mut at = 0;
    while value.len() < len {
        value.extend_from_slice(&mix(state.wrapping_add(at)).to_le_bytes());
        at += 8;
    }
    value.truncate(len);
    value
}

/// Every other record has a key; some keys are empty.
pub fn key(index: u64) -> Option<Vec<u8>> {
    if index.is_multiple_of(2) {
        None
    } else if index.is_multiple_of(101) {
        Some(Vec::new())
    } else {
        Some(format!("key-{}", index % 1000).into_bytes())
    }
}

pub fn header(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}
