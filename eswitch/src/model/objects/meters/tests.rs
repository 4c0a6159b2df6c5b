use super::*;
use crate::model::types::{Role as End, VportInfo};

const PORT: Vport = Vport(0);
const NOW: Tick = Tick(0);

const SRTCM: Profile = bytes(Algorithm::Rfc2697 { cir: 1000, cbs: 1000, ebs: 0 });
const TRTCM: Profile = bytes(Algorithm::Rfc2698 { cir: 1000, pir: 2000, cbs: 1000, pbs: 2000 });
const DROP: &[Action<'static>] = &[Action::Drop];
const TO_PORT: &[Action<'static>] = &[Action::RepresentedPort(Some(1))];

const fn bytes(algorithm: Algorithm) -> Profile {
    Profile { algorithm, packet_mode: false }
}

fn topology() -> Topology {
    let info = |role, port_id| VportInfo { role, port_id };
    Topology::new(vec![info(End::Uplink(0), 0), info(End::Host(0), 1)])
}

fn params(profile: u32, policy: u32) -> MeterParams {
    let statistics = STATS_PACKETS_DROPPED | STATS_BYTES_DROPPED;
    MeterParams { profile, policy, enabled: true, colour_aware: false, statistics, shared: true }
}

/// Profile 1 (single rate), profile 2 (two rates), policy 1 (default), policy 2 (to a port).
fn meters() -> Meters {
    let mut meters = Meters::new(4, Steering::Software);
    meters.profile_add(PORT, 1, SRTCM).unwrap();
    meters.profile_add(PORT, 2, TRTCM).unwrap();
    meters.policy_add(&topology(), PORT, 1, &[&[], &[], DROP]).unwrap();
    meters.policy_add(&topology(), PORT, 2, &[TO_PORT, TO_PORT, DROP]).unwrap();
    meters
}

#[track_caller]
fn refused<T>(answer: Result<T, MtrRefusal>, errno: Errno, cause: Cause) {
    let refusal = answer.err().expect("refused");
    assert_eq!((refusal.errno, refusal.cause), (errno, cause), "{refusal}");
}

#[test]
fn layout() {
    assert!(size_of::<Meter>() <= 128, "{}", size_of::<Meter>());
    assert_eq!(Meters::new(1 << 24, Steering::Software).chunks.len(), 0);
    assert_eq!((Cause::MtrId as i32, Cause::MeterPolicy as i32), (5, 14), "as in rte_mtr.h");
}

#[test]
fn profiles_have_limits() {
    let mut meters = meters();
    refused(meters.profile_add(PORT, 1, SRTCM), Errno::Exist, Cause::MeterProfileId);
    refused(meters.profile_add(PORT, u32::MAX, SRTCM), Errno::Inval, Cause::MeterProfileId);
    meters.profile_add(Vport(1), 1, SRTCM).unwrap();
    let (rate, burst) = (8 * (1u64 << 30) * 0xff, 0xffu64 << 31);
    let good = [
        Algorithm::Rfc2697 { cir: rate, cbs: burst, ebs: burst },
        Algorithm::Rfc2698 { cir: rate, pir: 2 * rate, cbs: burst, pbs: 2 * burst },
        Algorithm::Rfc4115 { cir: 1, eir: 0, cbs: 1, ebs: 0 },
    ];
    for (id, algorithm) in (10..).zip(good) {
        meters.profile_add(PORT, id, bytes(algorithm)).unwrap();
    }
    let bad = [
        Algorithm::Rfc2697 { cir: 0, cbs: 1, ebs: 1 },
        Algorithm::Rfc2697 { cir: 1, cbs: 0, ebs: 1 },
        Algorithm::Rfc2697 { cir: rate + 1, cbs: 1, ebs: 1 },
        Algorithm::Rfc2697 { cir: 1, cbs: 1, ebs: burst + 1 },
        Algorithm::Rfc2698 { cir: 2, pir: 1, cbs: 1, pbs: 1 },
        Algorithm::Rfc2698 { cir: 1, pir: 1, cbs: 2, pbs: 1 },
        Algorithm::Rfc2698 { cir: 1, pir: 2 * rate + 1, cbs: 1, pbs: 1 },
        Algorithm::Rfc4115 { cir: 1, eir: rate + 1, cbs: 1, ebs: 1 },
    ];
    for algorithm in bad {
        refused(meters.profile_add(PORT, 99, bytes(algorithm)), Errno::Notsup, Cause::MtrParams);
    }
    let packets = Profile { packet_mode: true, ..bytes(Algorithm::Rfc2697 { cir: rate, cbs: 1, ebs: 0 }) };
    refused(meters.profile_add(PORT, 99, packets), Errno::Notsup, Cause::MtrParams);
    refused(meters.profile_delete(PORT, 99), Errno::Noent, Cause::MeterProfileId);
    meters.profile_delete(PORT, 10).unwrap();
}

#[test]
fn meters_come_and_go() {
    let mut meters = meters();
    refused(meters.create(NOW, PORT, 7, &params(9, 1)), Errno::Noent, Cause::MeterProfileId);
    refused(meters.create(NOW, PORT, 7, &params(1, 9)), Errno::Noent, Cause::MeterPolicyId);
    refused(meters.create(NOW, PORT, 7, &params(1, u32::MAX)), Errno::Noent, Cause::MeterPolicyId);
    let id = meters.create(NOW, PORT, 7, &params(1, 1)).unwrap();
    refused(meters.create(NOW, PORT, 7, &params(1, 1)), Errno::Exist, Cause::MtrId);
    meters.create(NOW, PORT, 8, &params(2, 2)).unwrap();
    refused(meters.profile_delete(PORT, 1), Errno::Busy, Cause::MeterProfileId);
    refused(meters.policy_delete(PORT, 1), Errno::Notsup, Cause::MeterPolicyId);
    refused(meters.policy_delete(PORT, 2), Errno::Busy, Cause::MeterPolicyId);
    refused(meters.policy_delete(PORT, 3), Errno::Notsup, Cause::MeterPolicyId);
    assert_eq!(meters.attach(PORT, 7), Ok(id));
    assert_eq!(meters.attach(PORT, 7), Ok(id));
    assert_eq!(meters.attach(Vport(1), 7).unwrap_err().errno, Errno::Inval);
    meters.detach(id);
    refused(meters.destroy(PORT, 7), Errno::Busy, Cause::Unspecified);
    meters.detach(id);
    meters.destroy(PORT, 7).unwrap();
    refused(meters.destroy(PORT, 7), Errno::Noent, Cause::MtrId);
    refused(meters.enable(PORT, 7, true), Errno::Noent, Cause::MtrId);
    refused(meters.statistics(PORT, 7, true), Errno::Noent, Cause::MtrId);
    refused(meters.statistics_update(PORT, 7, 0), Errno::Noent, Cause::MtrId);
    refused(meters.profile_update(NOW, PORT, 7, 1), Errno::Noent, Cause::MtrId);
    meters.profile_delete(PORT, 1).unwrap();
    meters.policy_delete(PORT, 1).unwrap();
    assert_eq!((meters.live(), meters.info(id)), (1, None));
    for id in 20..23 {
        meters.create(NOW, PORT, id, &params(2, 2)).unwrap();
    }
    refused(meters.create(NOW, PORT, 23, &params(2, 2)), Errno::Nomem, Cause::Unspecified);
}

#[test]
fn an_unshared_meter_has_one_user() {
    let mut meters = meters();
    meters.create(NOW, PORT, 7, &MeterParams { shared: false, ..params(1, 1) }).unwrap();
    meters.attach(PORT, 7).unwrap();
    assert_eq!(meters.attach(PORT, 7).unwrap_err().errno, Errno::Inval);
}

#[test]
fn red_is_counted_and_disabled_meters_colour_nothing() {
    let mut meters = meters();
    let id = meters.create(NOW, PORT, 7, &MeterParams { colour_aware: true, ..params(1, 1) }).unwrap();
    let colour = |meters: &mut Meters, bytes, arrived| meters.colour(NOW, id, bytes, arrived);
    assert_eq!(colour(&mut meters, 1000, Colour::Green), Colour::Green);
    assert_eq!(colour(&mut meters, 100, Colour::Green), Colour::Red);
    assert_eq!(colour(&mut meters, 50, Colour::Red), Colour::Red);
    meters.enable(PORT, 7, false).unwrap();
    assert_eq!(colour(&mut meters, 100, Colour::Yellow), Colour::Yellow);
    meters.enable(PORT, 7, true).unwrap();
    let mask = STATS_PACKETS_DROPPED | STATS_BYTES_DROPPED;
    let all = MeterStatistics { packets_dropped: 2, bytes_dropped: 150, mask };
    assert_eq!(meters.statistics(PORT, 7, true), Ok(all));
    colour(&mut meters, 10, Colour::Green);
    meters.statistics_update(PORT, 7, STATS_PACKETS_DROPPED | 1).unwrap();
    let packets = MeterStatistics { packets_dropped: 1, bytes_dropped: 0, mask: STATS_PACKETS_DROPPED };
    assert_eq!(meters.statistics(PORT, 7, false), Ok(packets));
    meters.statistics_update(PORT, 7, 0).unwrap();
    colour(&mut meters, 10, Colour::Green);
    assert_eq!(meters.statistics(PORT, 7, false), Ok(MeterStatistics::default()));
    meters.profile_update(NOW, PORT, 7, 2).unwrap();
    refused(meters.profile_delete(PORT, 2), Errno::Busy, Cause::MeterProfileId);
    meters.profile_delete(PORT, 1).unwrap();
    assert_eq!(meters.colour(Tick(Tick::SECOND), id, 1000, Colour::Green), Colour::Green);
}

#[test]
fn policies_are_checked() {
    let meters = &mut meters();
    let queue: &[Action<'_>] = &[Action::Queue(Some(0))];
    let jump: &[Action<'_>] = &[Action::Jump(Some(1))];
    let mark: &[Action<'_>] = &[Action::Mark(Some(1))];
    let no_fate: &[Action<'_>] = &[Action::SetTag { index: 0, data: 1, mask: 1 }];
    let unsupported: [PolicyActions<'_>; 9] = [
        [jump, jump, &[Action::Drop, Action::Jump(Some(1))]],
        [&[], &[], &[]],
        [&[], &[], jump],
        [&[Action::RepresentedPort(Some(9))], &[], DROP],
        [&[Action::Count], &[], DROP],
        [&[Action::Drop, Action::Mark(Some(1))], &[], DROP],
        [&[Action::Jump(Some(1)), Action::RepresentedPort(Some(1))], &[], DROP],
        [mark, &[], DROP],
        [&[Action::Mark(Some(1)); 9], &[], DROP],
    ];
    for actions in unsupported {
        refused(meters.policy_validate(&topology(), PORT, &actions), Errno::Notsup, Cause::MeterPolicy);
    }
    let invalid: [PolicyActions<'_>; 2] =
        [[TO_PORT, queue, DROP], [&[Action::Rss { queues: &[1] }], &[Action::Rss { queues: &[2] }], DROP]];
    for actions in invalid {
        refused(meters.policy_validate(&topology(), PORT, &actions), Errno::Inval, Cause::MeterPolicy);
    }
    for (id, actions) in (10..).zip([[jump, DROP, DROP], [queue, queue, DROP], [no_fate, no_fate, DROP]]) {
        meters.policy_add(&topology(), PORT, id, &actions).unwrap();
        meters.create(NOW, PORT, id, &params(2, id)).unwrap();
    }
    let domains = |id| meters.info(meters.find(PORT, id).unwrap()).unwrap().domains;
    assert_eq!([domains(10), domains(11), domains(12)], [FDB | NIC_RX | NIC_TX, NIC_RX, NIC_TX]);
    refused(meters.policy_add(&topology(), PORT, 2, &[jump, jump, DROP]), Errno::Exist, Cause::MeterPolicyId);
    refused(meters.policy_add(&topology(), PORT, 3, &[&[], &[], DROP]), Errno::Exist, Cause::MeterPolicyId);
    let invalid = meters.policy_add(&topology(), PORT, u32::MAX, &[jump, jump, DROP]);
    refused(invalid, Errno::Notsup, Cause::MeterPolicyId);
}

#[test]
fn a_policy_must_have_something_for_each_colour() {
    let mut meters = meters();
    meters.policy_add(&topology(), PORT, 3, &[TO_PORT, &[], DROP]).unwrap();
    meters.policy_add(&topology(), PORT, 4, &[&[], TO_PORT, DROP]).unwrap();
    meters.create(NOW, PORT, 1, &params(1, 3)).unwrap();
    refused(meters.create(NOW, PORT, 2, &params(2, 3)), Errno::Notsup, Cause::MeterPolicyId);
    refused(meters.create(NOW, PORT, 2, &params(1, 4)), Errno::Notsup, Cause::MeterPolicyId);
}

#[test]
fn rules_learn_what_a_policy_does() {
    let mut meters = meters();
    let default = meters.create(NOW, PORT, 1, &params(1, 1)).unwrap();
    let ported = meters.create(NOW, PORT, 2, &params(2, 2)).unwrap();
    let info = meters.info(default).unwrap();
    assert!(info.default_policy && info.counts_drops && info.domains & FDB != 0);
    assert_eq!(meters.actions(default, Colour::Green).count(), 0);
    assert!(!meters.info(ported).unwrap().default_policy);
    assert_eq!(meters.actions(ported, Colour::Yellow).collect::<Vec<_>>(), TO_PORT);
    assert_eq!(meters.actions(ported, Colour::Red).count(), 0);
}

#[test]
fn meters_in_a_row() {
    let mut meters = meters();
    meters.create(NOW, PORT, 1, &params(2, 1)).unwrap();
    meters.create(NOW, PORT, 2, &params(2, 2)).unwrap();
    let next = |id| [Action::Meter(id)];
    let check = |meters: &Meters, green: &[Action<'_>], yellow: &[Action<'_>]| {
        meters.policy_validate(&topology(), PORT, &[green, yellow, DROP])
    };
    refused(check(&meters, &next(9), &[]), Errno::Inval, Cause::MtrId);
    refused(check(&meters, &next(1), &[]), Errno::Inval, Cause::MtrId);
    refused(check(&meters, &next(2), TO_PORT), Errno::Inval, Cause::MeterPolicy);
    let twice = [Action::Jump(Some(1)), Action::Meter(2)];
    refused(check(&meters, &twice, &[]), Errno::Inval, Cause::PolicerActionGreen);
    meters.policy_add(&topology(), PORT, 5, &[&next(2), &next(2), DROP]).unwrap();
    refused(meters.destroy(PORT, 2), Errno::Busy, Cause::Unspecified);
    let first = meters.create(NOW, PORT, 3, &params(2, 5)).unwrap();
    let info = meters.info(first).unwrap();
    assert_eq!((info.next_meter, info.domains), (Some(2), FDB));
    meters.destroy(PORT, 3).unwrap();
    meters.policy_delete(PORT, 5).unwrap();
    meters.destroy(PORT, 2).unwrap();
}

#[test]
fn hardware_steering_has_profiles_and_marks_only() {
    let mut meters = Meters::new(2, Steering::Hardware);
    refused(meters.profile_add(PORT, 0, SRTCM), Errno::Notsup, Cause::Unspecified);
    meters.configure(PORT, 1);
    refused(meters.profile_add(PORT, 1, SRTCM), Errno::Inval, Cause::MeterProfileId);
    refused(meters.profile_delete(PORT, 1), Errno::Inval, Cause::MeterProfileId);
    meters.profile_add(PORT, 0, SRTCM).unwrap();
    let nothing: &[Action<'_>] = &[];
    let policy = meters.policy_add(&topology(), PORT, 1, &[nothing, nothing, DROP]);
    refused(policy, Errno::Nosys, Cause::Unspecified);
    refused(meters.create(NOW, PORT, 1, &params(0, 1)), Errno::Nosys, Cause::Unspecified);
    let profile = meters.profile_get(PORT, 0).unwrap();
    let params = MarkParams { profile, colour_aware: false, enabled: true };
    assert!(profile > 0);
    assert_eq!(meters.mark(NOW, &MarkParams { profile: 99, ..params }).unwrap_err().errno, Errno::Inval);
    let id = meters.mark(NOW, &params).unwrap();
    let other = meters.mark(NOW, &params).unwrap();
    assert_eq!(meters.mark(NOW, &params).unwrap_err().errno, Errno::Nomem);
    assert_eq!(meters.colour(NOW, id, 1000, Colour::Red), Colour::Green, "colour-blind");
    assert_eq!(meters.colour(NOW, id, 1, Colour::Green), Colour::Red);
    assert_eq!(meters.colour(NOW, other, 1, Colour::Green), Colour::Green);
    let update = MarkUpdate { colour_aware: Some(true), enabled: Some(false), ..MarkUpdate::default() };
    meters.mark_update(NOW, id, &update).unwrap();
    assert_eq!(meters.colour(NOW, id, 1, Colour::Yellow), Colour::Yellow);
    let faster = meters.profile_of(profile).unwrap();
    meters.profile_delete(PORT, 0).unwrap();
    assert_eq!(meters.profile_get(PORT, 0), None);
    assert_eq!(meters.profile_of(profile).unwrap_err().errno, Errno::Inval);
    let update = MarkUpdate { profile: Some(faster), ..update };
    meters.mark_update(NOW, id, &update).unwrap();
    assert!(meters.retain(id));
    meters.detach(id);
    assert_eq!(meters.live(), 2);
    meters.detach(id);
    assert_eq!(meters.live(), 1);
    assert_eq!(meters.colour(NOW, id, 1, Colour::Yellow), Colour::Yellow, "gone");
    assert!(!meters.retain(id));
    assert!(meters.mark_update(NOW, id, &update).is_err());
    let mut software = Meters::new(1, Steering::Software);
    assert_eq!(software.mark(NOW, &params).unwrap_err().errno, Errno::Notsup);
}
