//! ICMPv6 (RFC 4443). Its header is laid out like that of [`crate::wire::icmp`]; neighbour discovery
//! has its own module, [`crate::wire::nd`].

/// Protocol number.
pub const PROTOCOL: u8 = 58;

/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Type: redirect (RFC 4861).
pub const REDIRECT: u8 = 137;

/// Whether a type is an error about a packet, which it quotes, that concerns a connection.
#[inline]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// Whether no error may be sent about a message of this type (RFC 4443 §2.4 e): any error, known or
/// not, and redirects.
#[inline]
#[must_use]
pub const fn provokes_no_error(kind: u8) -> bool {
    kind < 128 || kind == REDIRECT
}
