//! The time in a packet: when it was made, so that who gets it knows how long it was on its way.
//!
//! The last 16 bytes of the payload are the time and its complement. Each word of the one and its counterpart
//! in the other add up to 0xffff, which is nothing in a checksum: it stays right, whatever the time is.

/// Bytes it takes.
pub const LEN: usize = 16;

/// Where it is in a frame of so many bytes: at an even offset, so that checksums see whole words.
#[inline]
fn place(length: usize) -> Option<usize> {
    Some(length.checked_sub(LEN)? & !1)
}

/// Writes the time, not 0, into a frame whose payload has room at its end, and is 0 there.
#[inline]
pub fn write(frame: &mut [u8], now: u64) {
    let Some(at) = place(frame.len()) else { return };
    frame[at..at + 8].copy_from_slice(&now.to_be_bytes());
    frame[at + 8..at + LEN].copy_from_slice(&(!now).to_be_bytes());
}

/// The time in a frame; `None` if there is none.
#[inline]
pub fn read(frame: &[u8]) -> Option<u64> {
    let at = place(frame.len())?;
    let (time, rest) = frame.get(at..)?.split_first_chunk::<8>()?;
    let complement = rest.first_chunk::<8>()?;
    let time = u64::from_be_bytes(*time);
    (time != 0 && time == !u64::from_be_bytes(*complement)).then_some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::args::Args;
    use crate::check::checksums_are_right;
    use crate::frame::{Kind, Template};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn checksums_stay_right(now in 1_u64.., flow: u32, size in 90..1500_u16, udp: bool, ipv6: bool) {
            let protocol = if udp { "udp" } else { "tcp" };
            let text = format!("size={size},protocol={protocol},ipv6={}", u8::from(ipv6));
            let kind = if udp { Kind::Datagram } else { Kind::Data };
            let template = Template::new(&Args::parse(&text).unwrap(), kind, size, [2; 6]);
            let mut frame = vec![0; template.room()];
            template.write(flow % (1 << 31), &mut frame);
            frame.truncate(usize::from(size));
            prop_assert_eq!(read(&frame), None);
            write(&mut frame, now);
            prop_assert_eq!(read(&frame), Some(now));
            prop_assert_eq!(checksums_are_right(&frame), Some(true));
        }
    }

    #[test]
    fn what_is_short_has_no_time() {
        for length in 0..LEN {
            assert_eq!(read(&vec![0xff; length]), None);
            write(&mut vec![0; length], 1);
        }
    }
}
