//! What a meter does with packets of each colour: `rte_mtr_meter_policy_params`, checked as mlx5 does.

use super::{Cause, MtrRefusal, refuse};
use crate::model::action::Action;
use crate::model::refusal::Errno;
use crate::model::types::Topology;

/// The FDB: rules with `transfer`.
pub const FDB: u8 = 1;
/// Rules with `ingress`.
pub const NIC_RX: u8 = 2;
/// Rules with `egress`.
pub const NIC_TX: u8 = 4;

/// Most actions per colour (`MLX5_DV_MAX_NUMBER_OF_ACTIONS`).
const ACTIONS_MAX: usize = 8;

/// Actions by colour: green, yellow, red. Empty: go on in the rule.
pub type PolicyActions<'a> = [&'a [Action<'a>]; 3];

/// An action without a life of its own.
#[derive(Clone, Debug)]
enum Owned {
    Plain(Action<'static>),
    Rss(Box<[u16]>),
}

/// A policy. It never changes, so rules may keep what they made of it.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    green: Vec<Owned>,
    yellow: Vec<Owned>,
    /// Where rules may use it: [`FDB`], [`NIC_RX`], [`NIC_TX`].
    pub(super) domains: u8,
    /// Which colours go on in the rule.
    pub(super) green_empty: bool,
    pub(super) yellow_empty: bool,
    /// The next meter, if packets go through another one.
    pub(super) next_meter: Option<u32>,
    /// Meters that use it.
    pub(super) references: u32,
}

/// What checking a policy has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Checked {
    pub(super) domains: u8,
    pub(super) green_empty: bool,
    pub(super) yellow_empty: bool,
    pub(super) next_meter: Option<u32>,
}

impl Checked {
    /// Green and yellow go on, red is dropped: the default policy.
    pub(super) fn is_default(&self) -> bool {
        self.green_empty && self.yellow_empty
    }
}

/// What `METER` in a policy needs to know of the meter that it names.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextMeter {
    pub(super) shared: bool,
    /// `None`: the default policy.
    pub(super) policy: Option<NextPolicy>,
}

/// The part of the next meter's policy that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextPolicy {
    pub(super) domains: u8,
    pub(super) next_meter: Option<u32>,
}

impl Policy {
    pub(super) fn new(actions: &PolicyActions<'_>, checked: Checked) -> Policy {
        let [green, yellow, _] = actions.map(|list| list.iter().filter_map(own).collect());
        let Checked { domains, green_empty, yellow_empty, next_meter } = checked;
        Policy { green, yellow, domains, green_empty, yellow_empty, next_meter, references: 0 }
    }

    pub(super) fn green(&self) -> impl Iterator<Item = Action<'_>> {
        self.green.iter().map(lend)
    }

    pub(super) fn yellow(&self) -> impl Iterator<Item = Action<'_>> {
        self.yellow.iter().map(lend)
    }
}

fn lend(owned: &Owned) -> Action<'_> {
    match owned {
        Owned::Plain(action) => *action,
        Owned::Rss(queues) => Action::Rss { queues },
    }
}

fn own(action: &Action<'_>) -> Option<Owned> {
    Some(match *action {
        Action::Rss { queues } => Owned::Rss(queues.into()),
        Action::RepresentedPort(port) => Owned::Plain(Action::RepresentedPort(port)),
        Action::PortId(port) => Owned::Plain(Action::PortId(port)),
        Action::Mark(mark) => Owned::Plain(Action::Mark(mark)),
        Action::SetTag { index, data, mask } => Owned::Plain(Action::SetTag { index, data, mask }),
        Action::Drop => Owned::Plain(Action::Drop),
        Action::Queue(queue) => Owned::Plain(Action::Queue(queue)),
        Action::Jump(group) => Owned::Plain(Action::Jump(group)),
        Action::Meter(meter) => Owned::Plain(Action::Meter(meter)),
        Action::ModifyField { op, dst, src, width } => {
            Owned::Plain(Action::ModifyField { op, dst, src, width })
        }
        _ => return None,
    })
}

/// The kinds of actions in one colour's list.
#[derive(Clone, Copy, Default)]
struct Seen {
    port: bool,
    drop: bool,
    jump: bool,
    meter: bool,
    /// `mark`, `queue` or `rss`.
    receive: bool,
    /// `queue` or `rss`.
    queue: bool,
    edit: bool,
}

impl Seen {
    fn fate_fdb(self) -> bool {
        self.port || self.drop || self.jump || self.meter
    }

    fn fate_nic(self) -> bool {
        self.queue || self.drop || self.jump || self.meter
    }
}

/// Checks a policy as `flow_dv_validate_mtr_policy_acts` does. `meter` finds a meter of the same port.
pub(super) fn check(
    topology: &Topology,
    actions: &PolicyActions<'_>,
    meter: &dyn Fn(u32) -> Option<NextMeter>,
) -> Result<Checked, MtrRefusal> {
    let [green, yellow, red] = *actions;
    if !matches!(red.first(), Some(Action::Drop)) {
        return Err(unsupported("red can only be dropped"));
    }
    let (green_empty, yellow_empty) = (green.is_empty(), yellow.is_empty());
    let all = FDB | NIC_RX | NIC_TX;
    let mut checked = Checked { domains: all, green_empty, yellow_empty, next_meter: None };
    if checked.is_default() {
        return Ok(checked);
    }
    // mlx5 takes no notice of the rest of red's list in a policy that does nothing else.
    if red.len() > 1 {
        return Err(unsupported("drop excludes all other actions"));
    }
    let mut domains = [all; 2];
    let mut seen = [Seen::default(); 2];
    for (colour, list) in [green, yellow].into_iter().enumerate() {
        let (found, chain) = list_kinds(topology, list, meter, &mut checked.next_meter)?;
        seen[colour] = found;
        if !list.is_empty() {
            domains[colour] = list_domains(found, chain)?;
        }
    }
    let chained = |seen: Seen| seen.meter || seen.jump;
    if checked.next_meter.is_some() && !green_empty && !yellow_empty && !seen.into_iter().all(chained) {
        return Err(invalid(Cause::MeterPolicy, "with a next meter, the other colour must jump or meter"));
    }
    let both = !green_empty && !yellow_empty && !seen[0].drop && !seen[1].drop;
    if both && domains[0] != domains[1] {
        return Err(invalid(Cause::MeterPolicy, "green and yellow belong to different domains"));
    }
    let queues = |list: &'_ [Action<'_>]| {
        list.iter().find_map(|action| match action {
            Action::Rss { queues } => Some(queues.to_vec()),
            _ => None,
        })
    };
    if let (Some(green), Some(yellow)) = (queues(green), queues(yellow)) {
        if green != yellow {
            return Err(invalid(Cause::MeterPolicy, "green and yellow have different RSS"));
        }
    }
    checked.domains = domains[0] & domains[1];
    if checked.domains == 0 {
        return Err(unsupported("no domain can have this policy"));
    }
    Ok(checked)
}

/// What is in a list, and the domains of the next meter if it names one.
fn list_kinds(
    topology: &Topology,
    list: &[Action<'_>],
    meter: &dyn Fn(u32) -> Option<NextMeter>,
    next: &mut Option<u32>,
) -> Result<(Seen, u8), MtrRefusal> {
    let (mut seen, mut chain) = (Seen::default(), u8::MAX);
    if list.len() > ACTIONS_MAX {
        return Err(unsupported("too many actions"));
    }
    for action in list {
        let fate = seen.fate_fdb() || seen.queue;
        match *action {
            Action::RepresentedPort(Some(port)) if !fate && topology.vport_of(port).is_some() => {
                seen.port = true;
            }
            Action::PortId(Some(port)) if !fate => {
                let known = u16::try_from(port).is_ok_and(|port| topology.vport_of(port).is_some());
                if !known {
                    return Err(unsupported("no such port in this switch"));
                }
                seen.port = true;
            }
            Action::RepresentedPort(_) | Action::PortId(_) => {
                return Err(unsupported("no such port in this switch, or a second fate"));
            }
            Action::Mark(Some(_)) => seen.receive = true,
            Action::SetTag { .. } | Action::ModifyField { .. } => seen.edit = true,
            Action::Drop => seen.drop = true,
            Action::Queue(Some(_)) | Action::Rss { .. } if !fate => {
                (seen.queue, seen.receive) = (true, true);
            }
            Action::Jump(Some(_)) if !fate => seen.jump = true,
            Action::Meter(id) => {
                if next.is_some_and(|other| other != id) {
                    return Err(unsupported("green and yellow must go to the same meter"));
                }
                if fate {
                    return Err(invalid(Cause::PolicerActionGreen, "two fates"));
                }
                chain = next_domains(id, meter)?;
                *next = Some(id);
                seen.meter = true;
            }
            _ => return Err(unsupported("this action cannot be in a policy here")),
        }
    }
    let others = seen.port || seen.jump || seen.meter || seen.receive || seen.edit;
    if seen.drop && others {
        return Err(unsupported("drop excludes all other actions"));
    }
    Ok((seen, chain))
}

/// Most meters that a packet goes through (`MLX5_MTR_CHAIN_MAX_NUM`).
const CHAIN_MAX: usize = 8;

/// Follows the chain; the domains are those of its first meter.
fn next_domains(first: u32, meter: &dyn Fn(u32) -> Option<NextMeter>) -> Result<u8, MtrRefusal> {
    let (mut id, mut domains) = (first, None);
    for _ in 1..CHAIN_MAX {
        let Some(next) = meter(id) else {
            return Err(invalid(Cause::MtrId, "the next meter does not exist"));
        };
        let Some(policy) = next.policy else {
            return Err(invalid(Cause::MtrId, "the next meter's policy must end the rule"));
        };
        if !next.shared {
            return Err(invalid(Cause::MtrId, "the next meter must be shared"));
        }
        domains = domains.or(Some(policy.domains));
        match policy.next_meter {
            None => return Ok(domains.unwrap_or(0)),
            Some(following) => id = following,
        }
    }
    Err(invalid(Cause::MeterPolicy, "too many meters in a row"))
}

fn list_domains(seen: Seen, chain: u8) -> Result<u8, MtrRefusal> {
    let mut domains = if seen.port {
        FDB
    } else if seen.receive {
        NIC_RX
    } else if seen.fate_fdb() {
        FDB | NIC_RX | NIC_TX
    } else {
        NIC_RX | NIC_TX
    };
    if seen.meter {
        domains &= chain;
    }
    if domains & FDB != 0 {
        if !seen.fate_fdb() {
            return Err(unsupported("no fate"));
        }
    } else if !seen.fate_nic() && domains & NIC_RX != 0 {
        // Without a fate only the transmit side can go on.
        if domains & NIC_TX == 0 {
            return Err(unsupported("no fate"));
        }
        domains = NIC_TX;
    }
    Ok(domains)
}

const fn unsupported(message: &'static str) -> MtrRefusal {
    refuse(Errno::Notsup, Cause::MeterPolicy, message)
}

const fn invalid(cause: Cause, message: &'static str) -> MtrRefusal {
    refuse(Errno::Inval, cause, message)
}
