//! Lists of actions.

use std::ffi::c_void;
use std::ptr;

use super::super::Form;
use super::super::actions::{ACTIONS_MAX, Actions, Scratch, translate};
use super::super::lives::Lives;
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp, Shared};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::CounterId;
use crate::pmd::ffi;

fn with<T>(kind: ffi::rte_flow_action_type, conf: &T) -> ffi::rte_flow_action {
    ffi::rte_flow_action { type_: kind, conf: ptr::from_ref(conf).cast::<c_void>() }
}

fn bare(kind: ffi::rte_flow_action_type) -> ffi::rte_flow_action {
    ffi::rte_flow_action { type_: kind, conf: ptr::null() }
}

/// Translates a list to which `END` is added, and looks at the result.
fn run<R>(
    list: &[ffi::rte_flow_action],
    form: Form,
    look: impl FnOnce(Result<&[Action<'_>], Refusal>) -> R,
) -> R {
    run_with(&Scratch::default(), list, form, look)
}

fn run_with<'a, R>(
    scratch: &'a Scratch<'a>,
    list: &[ffi::rte_flow_action],
    form: Form,
    look: impl FnOnce(Result<&[Action<'_>], Refusal>) -> R,
) -> R {
    let mut list = list.to_vec();
    list.push(ffi::rte_flow_action::default());
    let mut actions = Actions::new();
    // SAFETY: the list ends, and every `conf` is of its action's type.
    let done = unsafe { translate(list.as_ptr(), form, scratch, &mut actions) };
    look(done.map(|()| &actions[..]))
}

fn same(list: &[ffi::rte_flow_action], form: Form, expected: &[Action<'_>]) {
    run(list, form, |actions| assert_eq!(actions.unwrap(), expected));
}

fn refused(list: &[ffi::rte_flow_action], form: Form) -> (Errno, Cause) {
    run(list, form, |actions| {
        let refusal = actions.expect_err("it is wrong");
        (refusal.errno, refusal.cause)
    })
}

#[test]
fn numbers_are_turned_where_they_are_on_the_wire() {
    let port = ffi::rte_flow_action_ethdev { port_id: 2 };
    let tp = ffi::rte_flow_action_set_tp { port: 443_u16.to_be() };
    let ip = ffi::rte_flow_action_set_ipv4 { ipv4_addr: u32::from_ne_bytes([10, 1, 2, 3]) };
    let mut age = ffi::rte_flow_action_age::default();
    age.set_timeout(30);
    age.context = ptr::without_provenance_mut(0x1234);
    let by = 5_u32.to_be();
    let tag = ffi::rte_flow_action_set_tag { data: 1, mask: 2, index: 3 };
    same(
        &[
            with(ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DST, &ip),
            with(ffi::RTE_FLOW_ACTION_TYPE_SET_TP_DST, &tp),
            bare(ffi::RTE_FLOW_ACTION_TYPE_VOID),
            bare(ffi::RTE_FLOW_ACTION_TYPE_DEC_TTL),
            with(ffi::RTE_FLOW_ACTION_TYPE_DEC_TCP_SEQ, &by),
            with(ffi::RTE_FLOW_ACTION_TYPE_SET_TAG, &tag),
            with(ffi::RTE_FLOW_ACTION_TYPE_AGE, &age),
            bare(ffi::RTE_FLOW_ACTION_TYPE_COUNT),
            with(ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT, &port),
            bare(ffi::RTE_FLOW_ACTION_TYPE_PASSTHRU),
        ],
        Form::Rule,
        &[
            Action::SetIpv4Dst([10, 1, 2, 3]),
            Action::SetTpDst(443),
            Action::DecTtl,
            Action::AddTcpSeq(-5),
            Action::SetTag { index: 3, data: 1, mask: 2 },
            Action::Age { timeout_s: 30, context: 0x1234 },
            Action::Count,
            Action::RepresentedPort(Some(2)),
            Action::Other(ffi::RTE_FLOW_ACTION_TYPE_PASSTHRU as i32),
        ],
    );
}

#[test]
fn configurations_may_be_missing_where_a_rule_or_template_brings_them() {
    let port = [bare(ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT)];
    assert_eq!(refused(&port, Form::Rule), (Errno::Inval, Cause::ActionConf(0)));
    for form in [Form::Template, Form::Mask, Form::Insertion] {
        same(&port, form, &[Action::RepresentedPort(None)]);
    }
    let encap = [bare(ffi::RTE_FLOW_ACTION_TYPE_VOID), bare(ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP)];
    assert_eq!(refused(&encap, Form::Rule), (Errno::Inval, Cause::ActionConf(0)));
    assert_eq!(refused(&encap, Form::Template), (Errno::Inval, Cause::ActionConf(0)));
    same(&encap, Form::Mask, &[Action::RawEncap(&[])]);
    same(&encap, Form::Insertion, &[Action::RawEncap(&[])]);
}

#[test]
fn masks_are_not_followed() {
    let nowhere = ptr::without_provenance_mut::<u8>(usize::MAX);
    let raw = ffi::rte_flow_action_raw_encap { data: nowhere, preserve: nowhere, size: usize::MAX };
    let vxlan = ffi::rte_flow_action_vxlan_encap { definition: nowhere.cast() };
    let rss = ffi::rte_flow_action_rss { queue: nowhere.cast(), queue_num: u32::MAX, ..Default::default() };
    let mut modify = ffi::rte_flow_action_modify_field::default();
    modify.src.field = ffi::RTE_FLOW_FIELD_POINTER;
    modify.src.__bindgen_anon_1.pvalue = nowhere.cast();
    let all = [
        with(ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP, &raw),
        with(ffi::RTE_FLOW_ACTION_TYPE_VXLAN_ENCAP, &vxlan),
        with(ffi::RTE_FLOW_ACTION_TYPE_RSS, &rss),
        with(ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD, &modify),
    ];
    run(&all, Form::Mask, |actions| {
        let actions = actions.unwrap();
        assert_eq!(actions[0], Action::RawEncap(&[0xff]));
        assert_eq!(actions[1], Action::VxlanEncap(&[0xff]));
        assert_eq!(actions[2], Action::Rss { queues: &[u16::MAX] });
        let Action::ModifyField { src, .. } = actions[3] else { panic!("modify_field") };
        assert_eq!(src, Some(FieldSource::Value([0xff; 16])));
    });
}

#[test]
fn raw_data_is_bounded() {
    let mut bytes = [7_u8; 200];
    let mut encap =
        ffi::rte_flow_action_raw_encap { data: bytes.as_mut_ptr(), preserve: ptr::null_mut(), size: 132 };
    same(&[with(ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP, &encap)], Form::Rule, &[Action::RawEncap(&[7; 132])]);
    encap.size = 133;
    let refusal = (Errno::Inval, Cause::Action(0));
    assert_eq!(refused(&[with(ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP, &encap)], Form::Rule), refusal);
    encap.size = 0;
    assert_eq!(refused(&[with(ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP, &encap)], Form::Rule), refusal);
    encap = ffi::rte_flow_action_raw_encap { data: ptr::null_mut(), preserve: ptr::null_mut(), size: 20 };
    assert_eq!(refused(&[with(ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP, &encap)], Form::Rule), refusal);
    let decap = ffi::rte_flow_action_raw_decap { data: ptr::null_mut(), size: 14 };
    same(&[with(ffi::RTE_FLOW_ACTION_TYPE_RAW_DECAP, &decap)], Form::Rule, &[Action::RawDecap(&[0; 14])]);
}

#[test]
fn fields() {
    let address = [10_u8, 0, 0, 9];
    let mut conf = ffi::rte_flow_action_modify_field { width: 32, ..Default::default() };
    conf.dst.field = ffi::RTE_FLOW_FIELD_IPV4_DST;
    conf.src.field = ffi::RTE_FLOW_FIELD_POINTER;
    conf.src.__bindgen_anon_1.pvalue = address.as_ptr().cast_mut().cast();
    let mut value = [0; 16];
    value[..4].copy_from_slice(&address);
    let dst = FieldRef { field: Field::Ipv4Dst, level: 0, offset: 0 };
    let expected = |dst, src| Action::ModifyField { op: ModifyOp::Set, dst, src, width: 32 };
    let kind = ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD;
    same(&[with(kind, &conf)], Form::Rule, &[expected(dst, Some(FieldSource::Value(value)))]);

    conf.src.__bindgen_anon_1.pvalue = ptr::null_mut();
    assert_eq!(refused(&[with(kind, &conf)], Form::Rule), (Errno::Inval, Cause::ActionConf(0)));
    same(&[with(kind, &conf)], Form::Template, &[expected(dst, None)]);

    // A register's number is the CPU's; the model's value is as on the wire.
    conf.dst.field = ffi::RTE_FLOW_FIELD_TAG;
    conf.dst.__bindgen_anon_1.__bindgen_anon_1.level = 2;
    conf.src.field = ffi::RTE_FLOW_FIELD_VALUE;
    let mut number = [0; 16];
    number[..4].copy_from_slice(&0x0102_0304_u32.to_ne_bytes());
    conf.src.__bindgen_anon_1.value = number;
    let mut wire = [0; 16];
    wire[..4].copy_from_slice(&[1, 2, 3, 4]);
    let tag = FieldRef { field: Field::Tag, level: 2, offset: 0 };
    same(&[with(kind, &conf)], Form::Rule, &[expected(tag, Some(FieldSource::Value(wire)))]);

    conf.src.field = ffi::RTE_FLOW_FIELD_META;
    conf.src.__bindgen_anon_1.value = [0; 16];
    let meta = FieldRef { field: Field::Meta, level: 0, offset: 0 };
    same(&[with(kind, &conf)], Form::Rule, &[expected(tag, Some(FieldSource::Field(meta)))]);

    conf.operation = 9;
    assert_eq!(refused(&[with(kind, &conf)], Form::Rule), (Errno::Inval, Cause::Action(0)));
}

#[test]
fn a_mirror_has_its_own_list_one_deep() {
    let port = ffi::rte_flow_action_ethdev { port_id: 2 };
    let inner = [
        bare(ffi::RTE_FLOW_ACTION_TYPE_COUNT),
        with(ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT, &port),
        ffi::rte_flow_action::default(),
    ];
    let sample = ffi::rte_flow_action_sample { ratio: 2, actions: inner.as_ptr() };
    let mirror = with(ffi::RTE_FLOW_ACTION_TYPE_SAMPLE, &sample);
    let actions = &[Action::Count, Action::RepresentedPort(Some(2))];
    same(
        &[mirror, bare(ffi::RTE_FLOW_ACTION_TYPE_DROP)],
        Form::Rule,
        &[Action::Sample { ratio: 2, actions }, Action::Drop],
    );
    assert_eq!(refused(&[mirror, mirror], Form::Rule), (Errno::Inval, Cause::Action(1)));
    let nested = [mirror, ffi::rte_flow_action::default()];
    let outer = ffi::rte_flow_action_sample { ratio: 1, actions: nested.as_ptr() };
    let outer = with(ffi::RTE_FLOW_ACTION_TYPE_SAMPLE, &outer);
    assert_eq!(refused(&[outer], Form::Rule), (Errno::Notsup, Cause::Action(0)));
}

#[test]
fn queues_are_borrowed() {
    let queues = [3_u16, 1, 2];
    let mut rss = ffi::rte_flow_action_rss { queue: queues.as_ptr(), queue_num: 3, ..Default::default() };
    let kind = ffi::RTE_FLOW_ACTION_TYPE_RSS;
    same(&[with(kind, &rss)], Form::Rule, &[Action::Rss { queues: &[3, 1, 2] }]);
    rss.queue_num = 0;
    assert_eq!(refused(&[with(kind, &rss)], Form::Rule), (Errno::Inval, Cause::ActionConf(0)));
    same(&[with(kind, &rss)], Form::Template, &[Action::Rss { queues: &[] }]);
    rss.queue_num = 100_000;
    assert_eq!(refused(&[with(kind, &rss)], Form::Rule), (Errno::Notsup, Cause::ActionConf(0)));
}

#[test]
fn indirect_handles_are_known() {
    let shared = Shared::Counter(CounterId(0));
    let kind = ffi::RTE_FLOW_ACTION_TYPE_INDIRECT;
    let lives = Lives::new();
    let conf = lives.begin(shared).unwrap().cast_const().cast();
    let ours = ffi::rte_flow_action { type_: kind, conf };
    let look = |form| {
        run_with(&Scratch::new(&lives), &[ours], form, |actions| match actions.ok()? {
            [Action::Indirect(shared)] => Some(*shared),
            _ => None,
        })
    };
    assert_eq!(look(Form::Rule), Some(Some(shared)));
    lives.end(shared);
    assert_eq!((look(Form::Rule), look(Form::Insertion)), (None, None), "destroyed");
    assert_eq!(look(Form::Mask), Some(None));
    let local = 1;
    assert_eq!(refused(&[with(kind, &local)], Form::Rule), (Errno::Inval, Cause::ActionConf(0)));
    same(&[bare(kind)], Form::Template, &[Action::Indirect(None)]);
}

#[test]
fn lengths_are_bounded() {
    let count = bare(ffi::RTE_FLOW_ACTION_TYPE_COUNT);
    run(&[count; ACTIONS_MAX], Form::Rule, |actions| assert_eq!(actions.unwrap().len(), ACTIONS_MAX));
    assert_eq!(refused(&[count; ACTIONS_MAX + 1], Form::Rule), (Errno::Notsup, Cause::ActionNum));
}
