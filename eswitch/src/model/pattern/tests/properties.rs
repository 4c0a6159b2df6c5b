//! A pattern made from a packet matches it, and nothing that differs in a bit that counts.

use super::*;
use proptest::prelude::*;

/// An item that owns its bytes.
struct Owned {
    layer: Layer,
    spec: Vec<u8>,
    mask: Vec<u8>,
    followed: Option<bool>,
}

impl Owned {
    fn item(&self) -> Item<'_> {
        Item::Header(Header {
            layer: self.layer,
            spec: Some(&self.spec),
            last: None,
            mask: Some(&self.mask),
            followed: self.followed,
        })
    }
}

/// Bytes of masks, one after the other: mostly all or nothing.
type Masks = std::vec::IntoIter<u8>;

fn owned(frame: &[u8], layer: Layer, at: u16, masks: &mut Masks) -> Owned {
    let at = usize::from(at);
    let mask: Vec<u8> = (0..layer.bytes()).map(|_| masks.next().unwrap_or(0)).collect();
    let mut item = Owned { layer, spec: frame[at..at + layer.bytes()].to_vec(), mask, followed: None };
    // Fields that no pattern may ask for.
    for at in 0..layer.bytes() {
        let mut only = [0; 40];
        only[at] = item.mask[at];
        if masked_elsewhere(layer, &only) {
            item.mask[at] = 0;
        }
    }
    item
}

fn stack_items(frame: &[u8], headers: &Stack, masks: &mut Masks, items: &mut Vec<Owned>) {
    let is_tag = |at: u16| frame[usize::from(at)..].starts_with(&[0x81, 0x00]);
    if headers.has_l2 {
        let mut eth = owned(frame, Layer::Eth, headers.l2, masks);
        if headers.vlans > 0 {
            // A tag's type is only understood in full.
            eth.mask[12..].fill(0xff);
        }
        eth.followed = (headers.vlans == 0 && eth.mask[0] & 1 != 0).then_some(false);
        items.push(eth);
    }
    for tag in 0..u16::from(headers.vlans) {
        let mut vlan = owned(frame, Layer::Vlan, headers.l2 + 14 + 4 * tag, masks);
        vlan.followed = (vlan.mask[0] & 1 != 0 && is_tag(headers.l2 + 12)).then_some(false);
        items.push(vlan);
    }
    match headers.l3 {
        L3::None => {}
        L3::Ipv4 => {
            let mut ip = owned(frame, Layer::Ipv4, headers.l3_at, masks);
            let asked = ip.mask[6] & 1 != 0;
            ip.mask[6..8].copy_from_slice(if asked { &[0x3f, 0xff] } else { &[0, 0] });
            items.push(ip);
        }
        L3::Ipv6 => {
            let mut ip = owned(frame, Layer::Ipv6, headers.l3_at, masks);
            ip.spec[6] = headers.protocol;
            ip.followed = (ip.mask[0] & 1 != 0).then_some(headers.fragment != Fragment::Whole);
            items.push(ip);
        }
    }
    let layer = match headers.l4 {
        _ if headers.fragment != Fragment::Whole => return,
        L4::None => return,
        L4::Tcp => Layer::Tcp,
        L4::Udp => Layer::Udp,
        L4::Icmp => Layer::Icmp,
        L4::Icmp6 => Layer::Icmp6,
    };
    items.push(owned(frame, layer, headers.l4_at, masks));
}

fn items(frame: &[u8], headers: &Headers, masks: &mut Masks) -> Vec<Owned> {
    let mut items = Vec::new();
    stack_items(frame, &headers.outer, masks, &mut items);
    let Some((kind, at)) = headers.tunnel else { return items };
    let layer = match kind {
        TunnelKind::Vxlan => Layer::Vxlan,
        TunnelKind::Geneve => Layer::Geneve,
        TunnelKind::Gre => Layer::Gre,
    };
    items.push(owned(frame, layer, at, masks));
    if kind == TunnelKind::Gre && frame[usize::from(at)] & 0x20 != 0 {
        items.push(owned(frame, Layer::GreKey, at + 8, masks));
    }
    stack_items(frame, &headers.inner, masks, &mut items);
    items
}

fn masks() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0u8), 3 => Just(0xff), 1 => any::<u8>()];
    prop::collection::vec(byte, 200)
}

fn check(rule: &Match, packet: &Key, bits: &[prop::sample::Index]) -> Result<(), TestCaseError> {
    prop_assert!(rule.matches(packet), "{rule}");
    for (mask, value) in rule.mask.words.iter().zip(&rule.value.words) {
        prop_assert_eq!(value & !mask, 0);
    }
    let counting: Vec<usize> =
        (0..64 * 24).filter(|bit| rule.mask.words[bit / 64] >> (bit % 64) & 1 != 0).collect();
    for bit in bits.iter().filter(|_| !counting.is_empty()) {
        let bit = counting[bit.index(counting.len())];
        let mut other = *packet;
        other.words[bit / 64] ^= 1 << (bit % 64);
        prop_assert!(!rule.matches(&other), "{rule}");
    }
    Ok(())
}

/// Whether a header's bit is matched as such: types, protocols and fragments have meanings of their own, and
/// the version is the layer's.
fn is_field(layer: Layer, bit: usize) -> bool {
    let at = bit / 8;
    match layer {
        Layer::Eth => at < 12,
        Layer::Vlan => at < 2,
        Layer::Ipv4 => bit % 8 < 4 && at == 0 || at != 0 && !(6..8).contains(&at) && at != 9,
        Layer::Ipv6 => bit % 8 < 4 && at == 0 || at != 0 && at != 6,
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_packets_own_pattern_matches_it(
        which in any::<prop::sample::Index>(),
        masks in masks(),
        bits in prop::collection::vec(any::<prop::sample::Index>(), 8),
        relaxed: bool,
    ) {
        let frames = all();
        let frame = &which.get(&frames).1;
        let packet = key(frame);
        let owned = items(frame, &parse(frame), &mut masks.into_iter());
        let items: Vec<Item<'_>> = owned.iter().map(Owned::item).collect();
        check(&lower(&items, &topology(), Some(Vport(1))).unwrap(), &packet, &bits)?;
        // HWS takes the type behind the tags for that of eth, unless an IP item stands for it.
        let tagged = owned.iter().any(|item| item.layer == Layer::Vlan);
        check(&template(&items, relaxed && !tagged), &packet, &bits)?;
    }

    /// A value that differs from the packet's where its mask counts keeps the packet out: no field is lost.
    #[test]
    fn every_masked_bit_counts(
        which in any::<prop::sample::Index>(),
        masks in masks(),
        item in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let frames = all();
        let frame = &which.get(&frames).1;
        let packet = key(frame);
        let mut owned = items(frame, &parse(frame), &mut masks.into_iter());
        let item = item.index(owned.len());
        let (layer, mask) = (owned[item].layer, &owned[item].mask);
        // The K bit is the key's, if that is matched; a pattern that denies it is refused before.
        let keyed = layer == Layer::Gre && owned.iter().any(|item| item.layer == Layer::GreKey);
        let bits: Vec<usize> = (0..mask.len() * 8)
            .filter(|bit| mask[bit / 8] >> (bit % 8) & 1 != 0 && is_field(layer, *bit) && !(keyed && *bit == 5))
            .collect();
        prop_assume!(!bits.is_empty());
        let bit = bits[bit.index(bits.len())];
        owned[item].spec[bit / 8] ^= 1 << (bit % 8);
        let items: Vec<Item<'_>> = owned.iter().map(Owned::item).collect();
        prop_assert!(!lower(&items, &topology(), None).unwrap().matches(&packet), "{layer:?} {bit}");
        prop_assert!(!template(&items, false).matches(&packet), "{layer:?} {bit}");
    }

    /// Nothing that an application can write makes lowering panic, or a value leave its mask.
    #[test]
    fn lowering_is_total(
        layers in prop::collection::vec((0usize..12, prop::collection::vec(any::<u8>(), 0..41), 0u8..3), 0..8),
        relaxed: bool,
    ) {
        const LAYERS: [Layer; 12] = [
            Layer::Eth, Layer::Vlan, Layer::Ipv4, Layer::Ipv6, Layer::Tcp, Layer::Udp,
            Layer::Icmp, Layer::Icmp6, Layer::Vxlan, Layer::Geneve, Layer::Gre, Layer::GreKey,
        ];
        let items: Vec<Item<'_>> = layers.iter().map(|(layer, bytes, followed)| Item::Header(Header {
            layer: LAYERS[*layer],
            spec: Some(bytes),
            last: None,
            mask: (bytes.len() % 3 != 0).then_some(&bytes[..]),
            followed: [None, Some(false), Some(true)][usize::from(*followed)],
        })).collect();
        let mut rules = Vec::from_iter(lower(&items, &topology(), None));
        if let Ok(template) = PatternTemplate::new(&items, relaxed, Some(Vport(2))) {
            let values = template.value(&items, &topology());
            rules.extend(values.map(|value| Match { mask: *template.mask(), value }));
        }
        for rule in rules {
            let _ = rule.to_string();
            prop_assert!(rule.mask.words.iter().zip(&rule.value.words).all(|(mask, value)| value & !mask == 0));
        }
    }
}
