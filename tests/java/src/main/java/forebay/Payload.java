package forebay;

import java.nio.ByteBuffer;

/**
 * The records of the round-trip tests, a function of their index alone. `payload.rs` in the Rust harness is the same
 * function: what one client writes, the other can check byte for byte without having seen it.
 */
final class Payload {
    static final int LARGE_EVERY = 20_000;
    static final int LARGE_BYTES = 1_000_000;

    private Payload() {}

    static long mix(long z) {
        z += 0x9E3779B97F4A7C15L;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }

    static int size(long index) {
        if (index % LARGE_EVERY == LARGE_EVERY - 1) {
            return LARGE_BYTES;
        }
        long draw = Long.remainderUnsigned(mix(index), 1000);
        long spread = mix(index ^ 0x5151) >>> 1;
        if (draw < 20) {
            return 0;
        }
        if (draw < 900) {
            return (int) (1 + spread % 200);
        }
        if (draw < 990) {
            return (int) (200 + spread % 1800);
        }
        return (int) (2000 + spread % 18_000);
    }

    /** Two records in three are noise, the third repeats itself, so that codecs have something to do. */
    static byte[] value(long index) {
        byte[] value = new byte[size(index)];
        if (index % 3 == 0) {
            for (int i = 0; i < value.length; i++) {
                value[i] = (byte) ('a' + (i + index) % 23);
            }
            return value;
        }
        long state = index * 31;
        for (int at = 0; at < value.length; at += 8) {
            long word = mix(state + at);
            for (int i = at; i < Math.min(at + 8, value.length); i++) {
                value[i] = (byte) (word >>> (8 * (i - at)));
            }
        }
        return value;
    }

    /** Every other record has a key; some keys are empty. */
    static byte[] key(long index) {
        if (index % 2 == 0) {
            return null;
        }
        if (index % 101 == 0) {
            return new byte[0];
        }
        return ("key-" + index % 1000).getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }

    static byte[] header(long index) {
        return ByteBuffer.allocate(8).putLong(index).array();
    }
}
