//! Whatever an application asks: an answer, never a panic.

use proptest::prelude::any;
use proptest::prelude::*;

use super::super::{Pools, TableAttr, TemplateAttr, dry_run, rule};
use super::super::{actions_template, pattern_template, table};
use super::*;
use crate::model::pattern::lower;

const LAYERS: [Layer; 12] = [
    Layer::Eth,
    Layer::Vlan,
    Layer::Ipv4,
    Layer::Ipv6,
    Layer::Tcp,
    Layer::Udp,
    Layer::Icmp,
    Layer::Icmp6,
    Layer::Vxlan,
    Layer::Geneve,
    Layer::Gre,
    Layer::GreKey,
];

fn item() -> impl Strategy<Value = Item<'static>> {
    let bytes = || proptest::option::of((0_usize..41, any::<bool>()));
    let leak = |chosen: Option<(usize, bool)>, layer: Layer| {
        chosen.map(|(length, ones)| {
            // Mostly as long as the layer asks, sometimes not.
            let length = if length < 36 { layer.bytes() } else { 40 - length };
            if ones { &FULL[..length] } else { &ZERO[..length] }
        })
    };
    let header =
        (0_usize..LAYERS.len(), bytes(), bytes(), bytes()).prop_map(move |(layer, spec, last, mask)| {
            let layer = LAYERS[layer];
            Item::Header(Header {
                layer,
                spec: leak(spec, layer),
                last: leak(last, layer),
                mask: leak(mask, layer),
                followed: None,
            })
        });
    prop_oneof![
        6 => header,
        1 => Just(from(WIRE_ID)),
        1 => any::<(u8, u32)>().prop_map(|(index, mask)| Item::Tag { index, data: 0, mask }),
        1 => any::<u32>().prop_map(|mask| Item::Meta { data: 0, mask }),
        1 => any::<u32>().prop_map(|id| Item::Mark { id, mask: id }),
        1 => any::<i32>().prop_map(Item::Other),
    ]
}

fn action() -> impl Strategy<Value = Action<'static>> {
    let plain = proptest::sample::select(vec![
        TO_HOST,
        Action::Drop,
        Action::Count,
        Action::Age { timeout_s: 1, context: 0 },
        Action::PopVlan,
        Action::PushVlan(0x8100),
        Action::SetVlanVid(1),
        Action::SetVlanPcp(1),
        Action::VxlanDecap,
        Action::VxlanEncap(&HEADERS),
        Action::RawEncap(&HEADERS),
        Action::RawDecap(&HEADERS),
        Action::RawDecap(&[]),
        Action::RawEncap(&[0; 14]),
        Action::DecTtl,
        Action::AddTcpSeq(i64::MIN),
        Action::SetIpv6Src([0; 16]),
        Action::Meter(1),
        Action::Jump(Some(u32::MAX)),
        Action::Indirect(None),
        Action::Sample { ratio: 1, actions: &[TO_HOST, Action::Count] },
        set(Field::MacDst, 48),
    ]);
    prop_oneof![
        8 => plain,
        1 => any::<(u32, u32, u32)>().prop_map(|(level, offset, width)| Action::ModifyField {
            op: ModifyOp::Set,
            dst: FieldRef { field: Field::Tag, level, offset },
            src: Some(FieldSource::Value([0; 16])),
            width,
        }),
        1 => any::<(u8, u32)>().prop_map(|(index, mask)| Action::SetTag { index, data: 0, mask }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_request_has_an_answer(
        items in proptest::collection::vec(item(), 0..8),
        actions in proptest::collection::vec(action(), 0..20),
        (group, priority, xmeta) in any::<(u32, u32, u8)>(),
        transfer in any::<bool>(),
    ) {
        let attr = Attr { group, priority, transfer, ingress: !transfer, egress: false };
        let mut context = with_xmeta(xmeta % 5);
        for port in [WIRE, HOST] {
            let made = rule(&context, port, true, &attr, &items, &actions);
            let asked = dry_run(&context, &Port::new(port, true), &attr, &items, &actions);
            // What can be made, validates.
            prop_assert!(made.is_err() || asked == made, "{:?} {:?}", made, asked);
            // What can be made has a meaning.
            if made.is_ok() {
                let lowered = lower(&items, &context.topology, transfer.then_some(port));
                prop_assert!(lowered.is_ok(), "{:?} {:?}", lowered, items);
            }
        }
        context.steering = Steering::Hardware;
        let template = TemplateAttr { transfer, ingress: !transfer, ..TemplateAttr::default() };
        let pools = Pools { counters: true, ages: true, meters: true };
        let pattern = pattern_template(&context, WIRE, &template, &items);
        let list = actions_template(&context, WIRE, &template, &actions, &actions, pools);
        if let (Ok(pattern), Ok(list)) = (pattern, list) {
            let _ = table(&context, WIRE, &TableAttr { attr, nb_flows: 8 }, &[&pattern], &[&list]);
        }
    }
}
