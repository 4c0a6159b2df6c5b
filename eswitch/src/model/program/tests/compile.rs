//! What action lists compile to, templates, and dumps.

use super::{compiled, topology};
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp, Shared};
use crate::model::program::{
    ActionsTemplate, AgeUse, CounterUse, Edits, FLAG_MARK, Fate, MeterUse, Mirror, Program,
};
use crate::model::refusal::{Cause, Errno};
use crate::model::types::{AgeId, CounterId, MeterId, Vport};

const HOST: Action<'static> = Action::RepresentedPort(Some(5));

fn modify(field: Field, width: u32, value: &[u8]) -> Action<'static> {
    let mut wide = [0; 16];
    wide[..value.len()].copy_from_slice(value);
    let dst = FieldRef { field, level: 0, offset: 0 };
    Action::ModifyField { op: ModifyOp::Set, dst, src: Some(FieldSource::Value(wide)), width }
}

fn described(actions: &[Action<'_>]) -> String {
    compiled(actions).describe(&topology()).to_string()
}

#[test]
fn every_part_is_compiled() {
    let program =
        compiled(&[Action::Count, Action::Age { timeout_s: 60, context: 7 }, Action::Meter(3), HOST]);
    let expected = Program {
        edits: Edits::default(),
        counter: CounterUse::Own,
        age: AgeUse::Own { timeout_s: 60, context: 7 },
        meter: MeterUse::Mtr(3),
        mirror: None,
        fate: Fate::Vport(Vport(1)),
    };
    assert_eq!(program, expected);
    assert!(program.edits.is_empty());
    let handles = [
        Action::Indirect(Some(Shared::Counter(CounterId(1)))),
        Action::Indirect(Some(Shared::Age(AgeId(2)))),
        Action::Indirect(Some(Shared::Meter(MeterId(3)))),
        Action::Indirect(Some(Shared::Rss(4))),
    ];
    let expected = Program {
        edits: Edits::default(),
        counter: CounterUse::Is(CounterId(1)),
        age: AgeUse::Is(AgeId(2)),
        meter: MeterUse::Is(MeterId(3)),
        mirror: None,
        fate: Fate::SharedQueues(4),
    };
    assert_eq!(compiled(&handles), expected);
}

#[test]
fn fates() {
    let fate = |action| compiled(&[action]).fate;
    assert_eq!(fate(Action::PortId(Some(4))), Fate::Vport(Vport(0)));
    assert_eq!(fate(Action::Jump(Some(7))), Fate::Jump(7));
    assert_eq!(fate(Action::Drop), Fate::Drop);
    assert_eq!(fate(Action::Queue(Some(2))), Fate::Queues([2].into()));
    assert_eq!(fate(Action::Rss { queues: &[1, 2] }), Fate::Queues([1, 2].into()));
}

#[test]
fn a_copy_has_the_edits_before_the_sample_only() {
    let copy = [Action::SetTtl(9), Action::RepresentedPort(Some(4))];
    let program = compiled(&[
        Action::Count,
        Action::SetTpSrc(1),
        Action::Sample { ratio: 2, actions: &copy },
        Action::SetTpDst(2),
        HOST,
    ]);
    let copied = compiled(&[Action::SetTpSrc(1), Action::SetTtl(9), Action::RepresentedPort(Some(4))]);
    assert_eq!(program.mirror, Some(Box::new(Mirror { ratio: 2, program: copied })));
    assert_eq!(program.edits, compiled(&[Action::SetTpSrc(1), Action::SetTpDst(2)]).edits);
    let dump = "count / sample ratio 2 actions { set_tp_src port 1 / set_ttl ttl_value 9 / represented_port \
                ethdev_port_id 4 } / set_tp_src port 1 / set_tp_dst port 2 / represented_port ethdev_port_id 5";
    assert_eq!(program.describe(&topology()).to_string(), dump);
}

#[test]
fn dumps_are_testpmd_syntax() {
    let nat = [
        Action::Count,
        Action::Age { timeout_s: 60, context: 0 },
        Action::SetIpv4Dst([10, 0, 0, 2]),
        Action::SetMacSrc([2, 0, 0, 0, 0, 1]),
        Action::DecTtl,
        Action::RepresentedPort(Some(5)),
    ];
    let dump = "count / age timeout 60 / set_mac_src mac_addr 02:00:00:00:00:01 / set_ipv4_dst ipv4_addr 10.0.0.2 \
                / dec_ttl / represented_port ethdev_port_id 5";
    assert_eq!(described(&nat), dump);
    let rest = [
        Action::Flag,
        Action::SetTag { index: 1, data: 0x12, mask: 0xff },
        Action::SetMeta { data: 5, mask: u32::MAX },
        Action::AddTcpSeq(7),
        Action::PopVlan,
        Action::Jump(Some(2)),
    ];
    let dump = "of_pop_vlan / flag / set_tag data 0x12 mask 0xff index 1 / set_meta data 0x5 mask 0xffffffff \
                / inc_tcp_seq value 7 / jump group 2";
    assert_eq!(described(&rest), dump);
    let field = |field, level, offset| FieldRef { field, level, offset };
    let copy = Action::ModifyField {
        op: ModifyOp::Set,
        dst: field(Field::Tag, 3, 4),
        src: Some(FieldSource::Field(field(Field::Ipv4Src, 2, 8))),
        width: 16,
    };
    let dump = "modify_field op set dst_type tag dst_level 3 dst_offset 4 src_type ipv4_src src_level 2 \
                src_offset 8 width 16 / drop";
    assert_eq!(described(&[copy, Action::Drop]), dump);
    let push = [Action::PushVlan(0x8100), Action::SetVlanVid(5), Action::SetVlanPcp(3), HOST];
    let dump = "of_push_vlan ethertype 0x8100 / of_set_vlan_vid vlan_vid 5 / of_set_vlan_pcp vlan_pcp 3 \
                / represented_port ethdev_port_id 5";
    assert_eq!(described(&push), dump);
    assert_eq!(described(&[]), "void");
    assert_eq!(described(&[Action::Rss { queues: &[1, 2] }]), "rss queues 1 2 end");
}

#[test]
fn modify_field_of_whole_fields_is_the_legacy_action() {
    let modern = [
        modify(Field::MacDst, 48, &[2, 0, 0, 0, 0, 9]),
        modify(Field::Ipv4Src, 32, &[10, 0, 0, 1]),
        modify(Field::Ipv4Dst, 32, &[10, 0, 0, 2]),
        modify(Field::UdpPortSrc, 16, &[0, 80]),
    ];
    let dump = "set_mac_dst mac_addr 02:00:00:00:00:09 / set_ipv4_src ipv4_addr 10.0.0.1 / set_ipv4_dst ipv4_addr \
                10.0.0.2 / set_tp_src port 80";
    assert_eq!(described(&modern), dump);
}

#[test]
fn flags_are_a_mark() {
    let marked = super::edited(&compiled(&[Action::Flag]).edits, &[]).expect("no header is needed");
    assert_eq!(marked.1.mark, Some(FLAG_MARK));
    let marked = super::edited(&compiled(&[Action::Mark(Some(9))]).edits, &[]).expect("no header is needed");
    assert_eq!(marked.1.mark, Some(9));
}

#[test]
fn templates_take_masked_values_and_rules_bring_the_rest() {
    let rule = |address: [u8; 4], port: u16| {
        [
            modify(Field::Ipv4Dst, 32, &address),
            modify(Field::MacDst, 48, &[2, 0, 0, 0, 0, 1]),
            Action::Count,
            Action::Age { timeout_s: 30, context: 5 },
            Action::RepresentedPort(Some(port)),
        ]
    };
    let masks = [
        modify(Field::Ipv4Dst, 32, &[]),
        modify(Field::MacDst, 48, &[0xff; 6]),
        Action::Count,
        Action::Age { timeout_s: 0, context: 0 },
        Action::RepresentedPort(Some(u16::MAX)),
    ];
    let template = ActionsTemplate::new(&rule([1, 1, 1, 1], 5), &masks).expect("a template");
    let mut asked = rule([10, 0, 0, 2], 4);
    asked[1] = modify(Field::MacDst, 48, &[9; 6]);
    let program = template.program(&asked, &topology()).expect("a rule");
    assert_eq!(program, compiled(&rule([10, 0, 0, 2], 5)), "the MAC and the port are the template's");
}

#[test]
fn templates_refuse_what_does_not_fit() {
    let refusal = |result: Result<Program, _>| {
        result.map_err(|refusal: crate::model::refusal::Refusal| (refusal.errno, refusal.cause))
    };
    let template =
        ActionsTemplate::new(&[Action::Count, Action::Jump(None)], &[Action::Count, Action::Jump(None)])
            .expect("a template");
    let topology = topology();
    let program = template.program(&[Action::Count, Action::Jump(Some(3))], &topology).expect("a rule");
    assert_eq!(program.fate, Fate::Jump(3));
    let short = template.program(&[Action::Count], &topology);
    assert_eq!(refusal(short), Err((Errno::Inval, Cause::ActionNum)));
    let other = template.program(&[Action::Count, Action::Drop], &topology);
    assert_eq!(refusal(other), Err((Errno::Inval, Cause::Action(1))));
    let nothing = template.program(&[Action::Count, Action::Jump(None)], &topology);
    assert_eq!(refusal(nothing), Err((Errno::Inval, Cause::ActionConf(1))));
    let constant = ActionsTemplate::new(&[Action::Jump(None)], &[Action::Jump(Some(1))]);
    assert_eq!(constant.map_err(|refusal| refusal.cause).err(), Some(Cause::ActionConf(0)));
    let mixed = ActionsTemplate::new(&[Action::Count], &[Action::Drop]);
    assert_eq!(mixed.map_err(|refusal| refusal.cause).err(), Some(Cause::Action(0)));
    let longer = ActionsTemplate::new(&[Action::Count], &[]);
    assert_eq!(longer.map_err(|refusal| refusal.cause).err(), Some(Cause::ActionNum));
}

#[test]
fn templates_own_what_they_were_given() {
    let template = {
        let bytes = vec![7; 40];
        let queues = vec![3, 4];
        let actions = [Action::RawEncap(&bytes), Action::Rss { queues: &queues }];
        ActionsTemplate::new(&actions, &actions).expect("a template")
    };
    let program = template.program(&[Action::RawEncap(&[]), Action::Rss { queues: &[] }], &topology());
    assert_eq!(program, Ok(compiled(&[Action::RawEncap(&[7; 40]), Action::Rss { queues: &[3, 4] }])));
}
