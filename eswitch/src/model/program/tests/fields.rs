//! Each field, whole and in part.

use super::oracle::{Addresses, Spec, Transport, gre, verdicts, vxlan};
use super::{applied, compiled, edited};
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use crate::model::switch::DropReason;
use crate::model::types::Colour;

fn at(field: Field, level: u32, offset: u32) -> FieldRef {
    FieldRef { field, level, offset }
}

fn value(bytes: &[u8]) -> Option<FieldSource> {
    let mut value = [0xee; 16];
    value[..bytes.len()].copy_from_slice(bytes);
    Some(FieldSource::Value(value))
}

fn set(dst: FieldRef, width: u32, bytes: &[u8]) -> Action<'static> {
    Action::ModifyField { op: ModifyOp::Set, dst, src: value(bytes), width }
}

fn add(field: Field, width: u32, bytes: &[u8]) -> Action<'static> {
    Action::ModifyField { op: ModifyOp::Add, dst: at(field, 0, 0), src: value(bytes), width }
}

fn copy(dst: FieldRef, src: FieldRef, width: u32) -> Action<'static> {
    Action::ModifyField { op: ModifyOp::Set, dst, src: Some(FieldSource::Field(src)), width }
}

fn check(from: &Spec, actions: &[Action<'_>], to: &Spec) {
    assert_eq!(applied(actions, &from.frame()), Ok(to.frame()), "{actions:?}");
}

#[test]
fn ethernet_and_tags() {
    let tcp = Spec { vlans: vec![0x6123, 7], ..Spec::tcp() };
    check(&tcp, &[set(at(Field::MacDst, 1, 0), 48, &[1; 6])], &Spec { dst: [1; 6], ..tcp.clone() });
    // The guide's example: the third byte.
    let dst = [2, 0, 0x85, 0, 0, 0xd];
    let third = set(at(Field::MacDst, 0, 16), 8, &[0xee, 0xee, 0x85]);
    check(&tcp, &[third], &Spec { dst, ..tcp.clone() });
    let vlans = vec![0x6fff, 7];
    check(&tcp, &[set(at(Field::VlanId, 0, 0), 12, &[0x5f, 0xff])], &Spec { vlans, ..tcp.clone() });
    let vlans = vec![0x6009, 7];
    check(&tcp, &[Action::SetVlanVid(9)], &Spec { vlans, ..tcp.clone() });
    let mut retyped = tcp.frame();
    retyped[20..22].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(applied(&[set(at(Field::MacType, 0, 0), 16, &[8, 6])], &tcp.frame()), Ok(retyped));
    let untagged = Spec::tcp().frame();
    assert_eq!(applied(&[Action::SetVlanVid(9)], &untagged), Err(DropReason::Malformed));
}

#[test]
fn ipv4() {
    let udp = Spec { options: vec![1; 8], ..Spec::udp() };
    let with = |tos, ttl| Spec { tos, ttl, ..udp.clone() };
    check(&udp, &[set(at(Field::Ipv4Dscp, 0, 0), 6, &[0x2e])], &with(0xb8, 64));
    check(&udp, &[Action::SetIpv4Dscp(0x2e)], &with(0xb8, 64));
    check(&udp, &[set(at(Field::Ipv4Ecn, 0, 0), 2, &[3])], &with(0x2f, 64));
    check(&udp, &[set(at(Field::Ipv4Dscp, 0, 4), 2, &[0x01])], &with(0x24, 64));
    check(&udp, &[set(at(Field::Ipv4Ttl, 0, 0), 8, &[7])], &with(0x2c, 7));
    check(&udp, &[Action::SetTtl(7), add(Field::Ipv4Ttl, 8, &[0xff])], &with(0x2c, 6));
    check(&udp, &[Action::SetTtl(0), Action::DecTtl], &with(0x2c, 255));
    let addresses = Addresses::V4([10, 9, 0, 1], [192, 0, 2, 3]);
    let second = set(at(Field::Ipv4Src, 0, 8), 8, &[0, 9]);
    check(&udp, &[second, add(Field::Ipv4Dst, 32, &[0, 0, 0, 1])], &Spec { addresses, ..udp.clone() });
    assert_eq!(applied(&[Action::SetIpv6Src([0; 16])], &udp.frame()), Err(DropReason::Malformed));
}

#[test]
fn ipv6() {
    let udp = Spec::udp().v6();
    let with = |tos, ttl| Spec { tos, ttl, ..udp.clone() };
    check(&udp, &[set(at(Field::Ipv6Dscp, 0, 0), 6, &[0x2e])], &with(0xb8, 64));
    check(&udp, &[Action::SetIpv6Dscp(0x2e)], &with(0xb8, 64));
    check(&udp, &[set(at(Field::Ipv6Ecn, 0, 0), 2, &[3])], &with(0x2f, 64));
    check(&udp, &[set(at(Field::Ipv6HopLimit, 0, 0), 8, &[7])], &with(0x2c, 7));
    check(&udp, &[add(Field::Ipv6HopLimit, 8, &[1])], &with(0x2c, 65));
    let Addresses::V6(src, mut dst) = udp.addresses else { return };
    dst[4..8].fill(9);
    let mut low = [0; 8];
    low[4..].fill(9);
    let addresses = Addresses::V6(src, dst);
    check(&udp, &[set(at(Field::Ipv6Dst, 0, 32), 32, &low)], &Spec { addresses, ..udp.clone() });
    assert_eq!(applied(&[Action::SetIpv4Src([0; 4])], &udp.frame()), Err(DropReason::Malformed));
    // ICMPv6's checksum covers the address, and mlx5 forgets it.
    let ping = Spec { transport: Transport::Icmp, ..udp.clone() };
    let mut stale = ping.frame();
    stale[22..38].fill(3);
    assert_eq!(applied(&[Action::SetIpv6Src([3; 16])], &ping.frame()), Ok(stale));
}

#[test]
fn tcp() {
    let from = Spec::tcp();
    let with = |seq, ack, flags| Spec { transport: Transport::Tcp { seq, ack, flags }, ..from.clone() };
    check(&from, &[set(at(Field::TcpSeqNum, 0, 0), 32, &[0, 0, 1, 0])], &with(256, 2, 0x18));
    check(&from, &[add(Field::TcpAckNum, 32, &[0xff; 4])], &with(1, 1, 0x18));
    check(&from, &[Action::AddTcpSeq(-2), Action::AddTcpAck(5)], &with(u32::MAX, 7, 0x18));
    check(&from, &[set(at(Field::TcpFlags, 0, 0), 9, &[0, 4])], &with(1, 2, 4));
    check(&from, &[set(at(Field::TcpFlags, 0, 8), 1, &[0xff, 0xff])], &with(1, 2, 0x19));
    let ports = [set(at(Field::TcpPortSrc, 0, 0), 16, &[1, 2]), set(at(Field::TcpPortDst, 0, 8), 8, &[9, 9])];
    check(&from, &ports, &Spec { ports: (0x102, 0x09), ..from.clone() });
    let udp = Spec::udp().frame();
    assert_eq!(applied(&ports, &udp), Err(DropReason::Malformed));
    assert_eq!(applied(&ports[..1], &udp), Err(DropReason::Malformed));
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let from = Spec { transport: Transport::Udp { sum: false }, ..Spec::udp() };
    let ports =
        [set(at(Field::UdpPortSrc, 0, 0), 16, &[1, 2]), set(at(Field::UdpPortDst, 0, 0), 16, &[3, 4])];
    check(&from, &ports, &Spec { ports: (0x102, 0x304), ..from.clone() });
    let again = [add(Field::UdpPortSrc, 16, &[0, 1])];
    check(&from, &again, &Spec { ports: (54, 5353), ..from.clone() });
}

/// Each port comes by once, and with it the one for which the sum is 0xffff.
#[test]
fn udp_never_loses_its_checksum() {
    let from = Spec::udp();
    let frame = from.frame();
    let mut wrapped = 0;
    for port in 0..=u16::MAX {
        let edited = applied(&[Action::SetTpDst(port)], &frame).expect("has ports");
        assert_ne!(edited[40..42], [0, 0]);
        if edited[40..42] == [0xff, 0xff] {
            wrapped += 1;
            assert_eq!(edited, Spec { ports: (53, port), ..from.clone() }.frame());
        }
    }
    assert_eq!(wrapped, 1);
}

#[test]
fn fragments() {
    let later = Spec { fragment: 0x0010, ..Spec::tcp() };
    let addresses = Addresses::V4([1, 1, 1, 1], [192, 0, 2, 2]);
    check(&later, &[Action::SetIpv4Src([1, 1, 1, 1])], &Spec { addresses, ..later.clone() });
    assert_eq!(applied(&[Action::SetTpSrc(1)], &later.frame()), Err(DropReason::Malformed));
    let first = Spec { fragment: 0x2000, ..Spec::tcp() };
    check(&first, &[Action::SetIpv4Src([1, 1, 1, 1])], &Spec { addresses, ..first.clone() });
}

#[test]
fn registers_and_copies() {
    let frame = Spec::tcp().frame();
    let actions = [
        copy(at(Field::Tag, 3, 0), at(Field::Ipv4Src, 0, 0), 32),
        set(at(Field::Ipv4Src, 0, 0), 32, &[172, 16, 0, 1]),
        set(at(Field::Meta, 0, 8), 8, &0xaabb_ccdd_u32.to_be_bytes()),
        set(at(Field::Mark, 0, 0), 32, &5_u32.to_be_bytes()),
        set(at(Field::MeterColour, 0, 0), 2, &1_u32.to_be_bytes()),
        copy(at(Field::Tag, 0, 4), at(Field::TcpPortDst, 0, 8), 8),
        copy(at(Field::Ipv4Dst, 0, 0), at(Field::Tag, 3, 0), 32),
        Action::SetTag { index: 1, data: 0xffff, mask: 0xf0f0 },
    ];
    let (edited, registers) = edited(&compiled(&actions).edits, &frame).expect("has all headers");
    let addresses = Addresses::V4([172, 16, 0, 1], [10, 0, 0, 1]);
    assert_eq!(edited, Spec { addresses, ..Spec::tcp() }.frame());
    assert_eq!(registers.tags, [80 << 4, 0xf0f0, 0, 0x0a00_0001, 0, 0, 0, 0]);
    assert_eq!((registers.meta, registers.mark, registers.colour), (0xcc00, Some(5), Colour::Yellow));
}

#[test]
fn inner_headers_and_the_checksum_around_them() {
    let inner = Spec::tcp();
    let rewritten = Spec { addresses: Addresses::V4([10, 0, 0, 1], [9, 9, 9, 9]), ttl: 63, ..inner.clone() };
    let actions = [
        set(at(Field::Ipv4Dst, 2, 0), 32, &[9, 9, 9, 9]),
        Action::ModifyField {
            op: ModifyOp::Add,
            dst: at(Field::Ipv4Ttl, 2, 0),
            src: value(&[0xff]),
            width: 8,
        },
    ];
    for sum in [false, true] {
        let outer = Spec { transport: Transport::Udp { sum }, ..Spec::udp() };
        let (from, to) = (vxlan(&outer, 5, &inner.frame()), vxlan(&outer, 5, &rewritten.frame()));
        check(&from, &actions, &to);
        let renumbered = set(at(Field::VxlanVni, 0, 0), 24, &[0, 1, 2]);
        check(&from, &[renumbered], &vxlan(&outer, 258, &inner.frame()));
        check(&from, &[set(at(Field::Ipv4Ttl, 1, 0), 8, &[3])], &Spec { ttl: 3, ..from.clone() });
        assert_eq!(verdicts(&to.frame())[1], sum.then_some(true));
    }
    check(&gre(&inner, 0x0800, &inner.packet()), &actions, &gre(&inner, 0x0800, &rewritten.packet()));
    // Without a tunnel, the outermost is the innermost.
    check(&inner, &actions, &rewritten);
}
