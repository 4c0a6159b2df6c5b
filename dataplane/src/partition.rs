//! `scheduler = "source-partition"`: the low bits of a client's address say its partition, and a table says
//! which backend has it. A switch can do the same with a mask, so nothing has to be remembered anywhere.
//!
//! The table is a pure function of the configured backends and of which of them take traffic now, so that all
//! nodes, and the same node after a restart, have the same one:
//!
//! * Each partition has a *home* among the configured backends, as many each as weights say, to within one.
//!   Who is up, down or drained does not change homes.
//! * A partition whose home takes traffic is there. So a backend that goes or comes back moves its own
//!   partitions, and none of another backend that was at home.
//! * The others are spread over those that are left, again as weights say.
//!
//! Configuring a backend more, or one less, gives homes anew: a few more move than must (of 256 partitions,
//! 3 % at most with 2 to 10 equal backends), as to move the fewest would take knowing what was before.

use crate::addr::Ip;
use crate::maglev::Identity;

/// A backend that is configured, with a weight above 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// What its partitions are drawn by.
    pub identity: Identity,
    /// Configured weight.
    pub weight: u32,
    /// How much of what it is due it takes now, percent: 0 if it is down or drained, below 100 while it
    /// starts slowly.
    pub share_percent: u8,
}

/// The partition of a client, of 2^`bits`.
#[inline]
#[must_use]
pub fn of(client: Ip, bits: u8) -> u32 {
    client.low32() & ((1 << bits) - 1)
}

/// By partition, the position of its backend in `members`. Empty if no member takes traffic.
#[must_use]
pub fn assign(bits: u8, members: &[Member]) -> Vec<u32> {
    let partitions = 1u32 << bits;
    if members.iter().all(|member| effective(member) == 0) {
        return Vec::new();
    }
    let seeds: Vec<u64> = members.iter().map(|member| seed(&member.identity)).collect();
    let due = quotas(partitions, &weights(members, |member| u64::from(member.weight)));
    let mut table = vec![NOBODY; partitions as usize];
    place(&mut table, &mut due.clone(), &seeds);

    // Who takes less than its due gives up what it has beyond, the same ones first each time.
    let mut keeps: Vec<u32> = due
        .iter()
        .zip(members)
        .map(|(due, member)| {
            (u64::from(*due) * u64::from(member.share_percent.min(100))).div_ceil(100) as u32
        })
        .collect();
    let mut room: Vec<u32> = keeps.clone();
    for at in order(partitions) {
        let home = table[at as usize] as usize;
        if keeps[home] == 0 {
            table[at as usize] = NOBODY;
        } else {
            keeps[home] -= 1;
        }
    }
    let now = quotas(partitions, &weights(members, effective));
    for (room, now) in room.iter_mut().zip(now) {
        *room = now.saturating_sub(*room);
    }
    place(&mut table, &mut room, &seeds);
    // Shares are rounded up, so that rooms may not suffice; then the largest take the rest.
    let largest = (0..members.len()).max_by_key(|at| (effective(&members[*at]), members[*at].identity));
    for backend in table.iter_mut().filter(|backend| **backend == NOBODY) {
        *backend = largest.unwrap_or_default() as u32;
    }
    table
}

/// How many of `partitions` each weight is due: to within one of its exact share, and all together exactly as
/// many. Of equal remainders the later identity's comes first.
#[must_use]
pub fn quotas(partitions: u32, weights: &[(Identity, u64)]) -> Vec<u32> {
    let sum: u128 = weights.iter().map(|(_, weight)| u128::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let exact = |weight: u64| u128::from(partitions) * u128::from(weight);
    let mut quotas: Vec<u32> = weights.iter().map(|(_, weight)| (exact(*weight) / sum) as u32).collect();
    let left = partitions - quotas.iter().sum::<u32>();
    let mut by_rest: Vec<usize> = (0..weights.len()).collect();
    by_rest.sort_by_key(|at| {
        let (identity, weight) = weights[*at];
        core::cmp::Reverse((exact(weight) % sum, seed(&identity), identity))
    });
    for at in by_rest.into_iter().take(left as usize) {
        quotas[at] += 1;
    }
    quotas
}

const NOBODY: u32 = u32::MAX;

fn weights(members: &[Member], weight: impl Fn(&Member) -> u64) -> Vec<(Identity, u64)> {
    members.iter().map(|member| (member.identity, weight(member))).collect()
}

/// What a member's weight comes to now.
fn effective(member: &Member) -> u64 {
    u64::from(member.weight) * u64::from(member.share_percent.min(100))
}

/// Gives each partition that nobody has to the member that likes it best and has room.
fn place(table: &mut [u32], room: &mut [u32], seeds: &[u64]) {
    for at in order(table.len() as u32) {
        let Some(slot) = table.get_mut(at as usize).filter(|slot| **slot == NOBODY) else { continue };
        let free = (0..seeds.len()).filter(|member| room[*member] > 0);
        if let Some(best) = free.max_by_key(|member| mix(seeds[*member] ^ mix(u64::from(at)))) {
            room[best] -= 1;
            *slot = best as u32;
        }
    }
}

/// All partitions, in an order that has nothing to do with who is nearby in the network.
fn order(partitions: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..partitions).collect();
    order.sort_by_key(|at| (mix(!u64::from(*at)), *at));
    order
}

fn seed(identity: &Identity) -> u64 {
    let [high, low] = identity.address.words();
    mix(mix(mix(high) ^ low) ^ u64::from(identity.port.unwrap_or(0)))
}

/// The finalizer of SplitMix64, which is fixed for all time.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(number: u8, weight: u32, share_percent: u8) -> Member {
        let identity = Identity { address: Ip::v4(0x0a00_0000 + u32::from(number)), port: None };
        Member { identity, weight, share_percent }
    }

    fn loads(table: &[u32], members: usize) -> Vec<u32> {
        let mut loads = vec![0; members];
        table.iter().for_each(|at| loads[*at as usize] += 1);
        loads
    }

    /// Whom each partition belongs to, by address.
    fn owners(bits: u8, members: &[Member]) -> Vec<Ip> {
        assign(bits, members).iter().map(|at| members[*at as usize].identity.address).collect()
    }

    #[test]
    fn a_client_is_known_by_its_low_bits() {
        assert_eq!(of(Ip::v4(0xc633_6407), 2), 3);
        assert_eq!(of(Ip::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0xff]), 4), 15);
        assert_eq!(of(Ip::v4(u32::MAX), 0), 0);
    }

    #[test]
    fn nobody_gets_anything_when_nobody_takes_any() {
        assert_eq!(assign(4, &[]), []);
        assert_eq!(assign(4, &[member(1, 3, 0)]), []);
        assert_eq!(assign(1, &[member(1, 3, 0), member(2, 1, 1)]), [1, 1]);
    }

    /// Whatever is built later must give the same: nodes of different versions serve side by side.
    #[test]
    fn the_table_never_changes() {
        let three = [member(1, 1, 100), member(2, 1, 100), member(3, 2, 100)];
        assert_eq!(assign(4, &three), [2, 2, 2, 0, 2, 2, 1, 0, 2, 2, 1, 1, 1, 2, 0, 0]);
        let mut turned = three;
        turned.rotate_left(1);
        assert_eq!(owners(4, &turned), owners(4, &three), "nor with the order of the file");
    }

    #[test]
    fn a_backend_more_moves_little_more_than_it_gets() {
        for (bits, excess_percent) in [(6, 15), (8, 5), (10, 4)] {
            for backends in 2..10 {
                let before: Vec<Member> = (0..backends).map(|number| member(number, 1, 100)).collect();
                let after: Vec<Member> = (0..=backends).map(|number| member(number, 1, 100)).collect();
                let (before, after) = (owners(bits, &before), owners(bits, &after));
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
                let fewest = before.len() / (usize::from(backends) + 1);
                let most = fewest + before.len() * excess_percent / 100;
                assert!(moved <= most, "{moved} of {}, where {fewest} would do", before.len());
            }
        }
    }

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let shares = prop_oneof![3 => Just(100u8), 1 => Just(0u8), 1 => 1u8..100];
        proptest::collection::vec((1u32..20, shares), 1..12).prop_map(|list| {
            (1u8..).zip(list).map(|(number, (weight, share))| member(number, weight, share)).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn all_are_given_out_as_weights_say(bits in 4u8..=10, mut members in members()) {
            members.iter_mut().for_each(|member| if member.share_percent > 0 { member.share_percent = 100 });
            let table = assign(bits, &members);
            let sum: u64 = members.iter().map(effective).sum();
            if sum == 0 {
                prop_assert!(table.is_empty());
                return Ok(());
            }
            prop_assert_eq!(table.len(), 1 << bits);
            for (load, member) in loads(&table, members.len()).into_iter().zip(&members) {
                let exact = f64::from(1u32 << bits) * effective(member) as f64 / sum as f64;
                prop_assert!((f64::from(load) - exact).abs() < 2.0, "{} of {}", load, exact);
            }
        }

        #[test]
        fn who_goes_takes_only_its_own_along(bits in 4u8..=10, members in members(), who in 0usize..12) {
            let who = who % members.len();
            let with = |share: u8| {
                let mut members: Vec<Member> = members.clone();
                members.iter_mut().for_each(|member| member.share_percent = 100);
                members[who].share_percent = share;
                assign(bits, &members)
            };
            let (all, slow, none) = (with(100), with(40), with(0));
            let is_own = |at: usize| all[at] as usize == who;
            for at in 0..none.len() {
                prop_assert!(is_own(at) || (none[at] == all[at] && slow[at] == all[at]));
                prop_assert!(none[at] as usize != who);
            }
        }

        /// Whatever else is wrong, a backend that is well has its own partitions.
        #[test]
        fn who_is_well_is_at_home(bits in 4u8..=10, members in members()) {
            let mut well: Vec<Member> = members.clone();
            well.iter_mut().for_each(|member| member.share_percent = 100);
            let (home, now) = (assign(bits, &well), assign(bits, &members));
            for (home, now) in home.iter().zip(&now) {
                prop_assert!(members[*home as usize].share_percent < 100 || home == now);
            }
        }

        #[test]
        fn the_order_of_the_file_is_nothing(bits in 4u8..=8, members in members(), turn in 0usize..12) {
            let mut turned = members.clone();
            turned.rotate_left(turn % members.len());
            prop_assert_eq!(owners(bits, &turned), owners(bits, &members));
        }
    }
}
