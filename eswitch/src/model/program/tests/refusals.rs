//! Lists that validation would have turned down: refused, not believed.

use super::topology;
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use crate::model::program::Program;
use crate::model::refusal::{Cause, Errno};

fn refused(actions: &[Action<'_>]) -> (Errno, Cause) {
    let refusal = Program::compile(actions, &topology()).expect_err("refused");
    (refusal.errno, refusal.cause)
}

fn modify(op: ModifyOp, field: Field, offset: u32, width: u32) -> Action<'static> {
    let dst = FieldRef { field, level: 0, offset };
    Action::ModifyField { op, dst, src: Some(FieldSource::Value([0; 16])), width }
}

#[test]
fn twice() {
    let second = (Errno::Inval, Cause::Action(1));
    let age = Action::Age { timeout_s: 1, context: 0 };
    assert_eq!(refused(&[Action::Count, Action::Count]), second);
    assert_eq!(refused(&[age, age]), second);
    assert_eq!(refused(&[Action::Meter(1), Action::Meter(1)]), second);
    assert_eq!(refused(&[Action::Drop, Action::Jump(Some(1))]), second);
    assert_eq!(refused(&[Action::VxlanDecap, Action::VxlanDecap]), second);
    assert_eq!(refused(&[Action::VxlanEncap(&[0; 50]), Action::RawEncap(&[0; 50])]), second);
    assert_eq!(refused(&[Action::VxlanEncap(&[0; 50]), Action::VxlanDecap]), second);
    let sample = Action::Sample { ratio: 1, actions: &[] };
    assert_eq!(refused(&[sample, sample]), second);
    let pops = [Action::PopVlan; 3];
    assert_eq!(refused(&pops), (Errno::Inval, Cause::Action(2)));
    let pushes = [Action::PushVlan(0x8100); 3];
    assert_eq!(refused(&pushes), (Errno::Inval, Cause::Action(2)));
}

#[test]
fn nothing_or_nowhere() {
    let configuration = (Errno::Inval, Cause::ActionConf(0));
    assert_eq!(refused(&[Action::RepresentedPort(None)]), configuration);
    assert_eq!(refused(&[Action::RepresentedPort(Some(9))]), configuration);
    assert_eq!(refused(&[Action::PortId(Some(65_536 + 5))]), configuration);
    assert_eq!(refused(&[Action::Jump(None)]), configuration);
    assert_eq!(refused(&[Action::Mark(None)]), configuration);
    assert_eq!(refused(&[Action::Indirect(None)]), configuration);
    assert_eq!(refused(&[Action::Rss { queues: &[] }]), configuration);
    assert_eq!(refused(&[Action::SetTag { index: 8, data: 0, mask: 0 }]), configuration);
    assert_eq!(refused(&[Action::VxlanEncap(&[0; 133])]), configuration);
    assert_eq!(refused(&[Action::VxlanEncap(&[0; 13])]), configuration);
}

#[test]
fn what_no_device_does() {
    let unsupported = (Errno::Notsup, Cause::Action(0));
    assert_eq!(refused(&[Action::Other(99)]), unsupported);
    assert_eq!(refused(&[Action::PortRepresentor(Some(4))]), unsupported);
    assert_eq!(refused(&[Action::RawEncap(&[0; 33])]), unsupported);
    assert_eq!(refused(&[modify(ModifyOp::Sub, Field::Ipv4Ttl, 0, 8)]), unsupported);
    for field in [Field::Start, Field::VlanType, Field::GeneveVni, Field::Other(23)] {
        assert_eq!(refused(&[modify(ModifyOp::Set, field, 0, 1)]), unsupported);
    }
    let small = [Action::RawDecap(&[0; 14]), Action::RawEncap(&[0; 14])];
    assert_eq!(refused(&small), (Errno::Notsup, Cause::Action(1)));
    let nested = Action::Sample { ratio: 1, actions: &[] };
    assert_eq!(refused(&[Action::Sample { ratio: 1, actions: &[nested] }]), (Errno::Inval, Cause::Action(0)));
    assert_eq!(refused(&[Action::Sample { ratio: 0, actions: &[] }]), (Errno::Inval, Cause::Action(0)));
}

#[test]
fn bits_that_a_field_lacks() {
    let bits = (Errno::Inval, Cause::Action(0));
    assert_eq!(refused(&[modify(ModifyOp::Set, Field::Ipv4Src, 0, 33)]), bits);
    assert_eq!(refused(&[modify(ModifyOp::Set, Field::Ipv4Src, 1, 32)]), bits);
    assert_eq!(refused(&[modify(ModifyOp::Set, Field::Ipv4Src, 0, 0)]), bits);
    assert_eq!(refused(&[modify(ModifyOp::Set, Field::Ipv4Src, u32::MAX, 1)]), bits);
}
