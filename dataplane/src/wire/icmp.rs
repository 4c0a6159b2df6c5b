//! ICMP (RFC 792).

/// Bytes of the header that all messages of interest share.
pub const LEN: usize = 8;
/// Protocol number.
pub const PROTOCOL: u8 = 1;
/// Offset of the checksum, here and in ICMPv6.
pub const CHECKSUM: usize = 2;

/// Type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: source quench, deprecated (RFC 6633).
pub const SOURCE_QUENCH: u8 = 4;
/// Type: redirect.
pub const REDIRECT: u8 = 5;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Code of destination unreachable: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// Whether a type is an error about a packet, which it quotes, that concerns a connection.
#[inline]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// Whether no error may be sent about a message of this type (RFC 1122 §3.2.2).
#[inline]
#[must_use]
pub const fn provokes_no_error(kind: u8) -> bool {
    is_error(kind) || matches!(kind, SOURCE_QUENCH | REDIRECT)
}

/// Writes the first eight bytes of a message, checksum 0.
pub fn emit(header: &mut [u8; LEN], kind: u8, code: u8, rest: u32) {
    let [a, b, c, d] = rest.to_be_bytes();
    *header = [kind, code, 0, 0, a, b, c, d];
}
