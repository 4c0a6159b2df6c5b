//! `rte_flow_action[]` becomes [`Action`]s: borrowed, bounded, without a heap.
//!
//! As with patterns, only what must be known to read the list is checked here. What has no room in the
//! application's memory (headers built from `vxlan_encap`'s items, a mirror's actions) lives in a
//! [`Scratch`] that the caller lends.

use std::cell::OnceCell;
use std::ffi::c_void;
use std::slice;

use arrayvec::ArrayVec;

use super::encap::{self, ENCAP_BYTES_MAX, Headers};
use super::items::ELEMENTS_MAX;
use super::lives::Lives;
use super::{Form, handle, modify, rss};
use crate::model::action::{Action, Shared};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::ffi;

/// Actions of a list at most.
pub(super) const ACTIONS_MAX: usize = 32;

/// Actions of a mirror at most.
const SAMPLE_ACTIONS_MAX: usize = 8;

/// A list of actions, translated.
pub(super) type Actions<'a> = ArrayVec<Action<'a>, ACTIONS_MAX>;

/// What a mask's nested data become: only whether there are any is asked.
const CONSTANT: &[u8] = &[0xff];

/// Room for what translated actions borrow beyond the application's memory.
#[derive(Default)]
pub(super) struct Scratch<'a> {
    /// By what indirect handles are known; without, there are none.
    lives: Option<&'a Lives>,
    /// `vxlan_encap`'s headers.
    headers: OnceCell<Headers>,
    /// `vxlan_encap`'s headers within a mirror.
    sample_headers: OnceCell<Headers>,
    /// A mirror's actions.
    sample: OnceCell<SampleActions<'a>>,
}

impl<'a> Scratch<'a> {
    /// For lists that may have indirect actions.
    pub(super) fn new(lives: &'a Lives) -> Scratch<'a> {
        Scratch { lives: Some(lives), ..Scratch::default() }
    }
}

/// A plain array: what is borrowed from itself must not need dropping.
struct SampleActions<'a> {
    list: [Action<'a>; SAMPLE_ACTIONS_MAX],
    len: usize,
}

/// Translates a list of actions into `out`, whose contents are replaced. Indices of a refusal's cause count
/// actions, not `void`s.
///
/// # Errors
/// EINVAL: no list, or an action that lacks its configuration, or one that no device could understand.
/// ENOTSUP: longer than [`ACTIONS_MAX`], no end within a few hundred elements, a mirror within a mirror.
///
/// # Safety
/// `raw` is null, or points to a list as `rte_flow_validate` (for [`Form::Template`] and [`Form::Mask`]:
/// `rte_flow_actions_template_create`) describes it: elements up to `END`, whose `conf` is null or points to
/// the structure of the element's type, and the pointers therein to what `rte_flow.h` says (in masks they
/// are not followed). All of it stays put and unchanged for `'a`.
pub(super) unsafe fn translate<'a>(
    raw: *const ffi::rte_flow_action,
    form: Form,
    scratch: &'a Scratch<'a>,
    out: &mut Actions<'a>,
) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { list(raw, form, scratch, false, out) }
}

/// Translates one list; `nested`: that of a mirror.
///
/// # Safety
/// As for [`translate`].
unsafe fn list<'a, const N: usize>(
    raw: *const ffi::rte_flow_action,
    form: Form,
    scratch: &'a Scratch<'a>,
    nested: bool,
    out: &mut ArrayVec<Action<'a>, N>,
) -> Result<(), Refusal> {
    out.clear();
    if raw.is_null() {
        return Err(Refusal::new(Errno::Inval, Cause::ActionNum, "NULL action"));
    }
    for at in 0..ELEMENTS_MAX {
        // SAFETY: no element so far was the last, so this one exists (the caller's promise).
        let element = unsafe { &*raw.add(at) };
        match element.type_ {
            ffi::RTE_FLOW_ACTION_TYPE_END => return Ok(()),
            ffi::RTE_FLOW_ACTION_TYPE_VOID => continue,
            _ => {}
        }
        let element = Element { kind: element.type_, conf: element.conf, form, index: out.len() };
        // SAFETY: the caller promises what `conf` points to.
        let action = unsafe { element.action(scratch, nested) }?;
        if out.try_push(action).is_err() {
            return Err(Refusal::new(Errno::Notsup, Cause::ActionNum, "too many actions"));
        }
    }
    Err(Refusal::new(Errno::Notsup, Cause::ActionNum, "actions without an end"))
}

/// One element of a list. Its methods are unsafe as [`translate`] is: `conf` is what `kind` says.
#[derive(Clone, Copy)]
pub(super) struct Element {
    kind: ffi::rte_flow_action_type,
    conf: *const c_void,
    form: Form,
    /// Its place among the actions.
    index: usize,
}

impl Element {
    fn refuse(&self, errno: Errno, message: &'static str) -> Refusal {
        Refusal::new(errno, Cause::Action(self.index), message)
    }

    /// The configuration; `None` without one where that is legal.
    unsafe fn conf<T: Copy>(&self) -> Result<Option<T>, Refusal> {
        if !self.conf.is_null() {
            // SAFETY: not null, and the caller promises that it points to a `T`.
            return Ok(Some(unsafe { self.conf.cast::<T>().read_unaligned() }));
        }
        if self.form == Form::Rule {
            return Err(Refusal::new(
                Errno::Inval,
                Cause::ActionConf(self.index),
                "configuration cannot be null",
            ));
        }
        Ok(None)
    }

    /// The configuration of an action that has no form without. Masks, and rules whose template has it all,
    /// may do without: nobody looks at the value.
    unsafe fn value<T: Copy + Default>(&self) -> Result<T, Refusal> {
        // SAFETY: as asked of the caller.
        match unsafe { self.conf::<T>() }? {
            Some(value) => Ok(value),
            None if self.form == Form::Template => {
                Err(Refusal::new(Errno::Inval, Cause::ActionConf(self.index), "configuration cannot be null"))
            }
            None => Ok(T::default()),
        }
    }

    unsafe fn action<'a>(&self, scratch: &'a Scratch<'a>, nested: bool) -> Result<Action<'a>, Refusal> {
        // SAFETY: in all arms, `rte_flow.h` gives each of these types the structure that is read here.
        unsafe {
            Ok(match self.kind {
                ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT => Action::RepresentedPort(
                    self.conf::<ffi::rte_flow_action_ethdev>()?.map(|conf| conf.port_id),
                ),
                ffi::RTE_FLOW_ACTION_TYPE_PORT_REPRESENTOR => Action::PortRepresentor(
                    self.conf::<ffi::rte_flow_action_ethdev>()?.map(|conf| conf.port_id),
                ),
                ffi::RTE_FLOW_ACTION_TYPE_PORT_ID => {
                    Action::PortId(self.conf::<ffi::rte_flow_action_port_id>()?.map(|conf| conf.id))
                }
                ffi::RTE_FLOW_ACTION_TYPE_JUMP => {
                    Action::Jump(self.conf::<ffi::rte_flow_action_jump>()?.map(|conf| conf.group))
                }
                ffi::RTE_FLOW_ACTION_TYPE_QUEUE => {
                    Action::Queue(self.conf::<ffi::rte_flow_action_queue>()?.map(|conf| conf.index))
                }
                ffi::RTE_FLOW_ACTION_TYPE_MARK => {
                    Action::Mark(self.conf::<ffi::rte_flow_action_mark>()?.map(|conf| conf.id))
                }
                ffi::RTE_FLOW_ACTION_TYPE_DROP => Action::Drop,
                ffi::RTE_FLOW_ACTION_TYPE_FLAG => Action::Flag,
                ffi::RTE_FLOW_ACTION_TYPE_COUNT => Action::Count,
                ffi::RTE_FLOW_ACTION_TYPE_RSS => self.rss()?,
                ffi::RTE_FLOW_ACTION_TYPE_AGE => {
                    let conf: ffi::rte_flow_action_age = self.value()?;
                    // Handed back as it came, never followed.
                    let context = conf.context.expose_provenance() as u64;
                    Action::Age { timeout_s: conf.timeout(), context }
                }
                ffi::RTE_FLOW_ACTION_TYPE_METER => {
                    Action::Meter(self.value::<ffi::rte_flow_action_meter>()?.mtr_id)
                }
                ffi::RTE_FLOW_ACTION_TYPE_METER_MARK => {
                    let conf: ffi::rte_flow_action_meter_mark = self.value()?;
                    let profile = handle::meter_profile(conf.profile.cast_const());
                    Action::MeterMark { profile, colour_aware: conf.color_mode != 0 }
                }
                ffi::RTE_FLOW_ACTION_TYPE_INDIRECT => Action::Indirect(self.shared(scratch)?),
                ffi::RTE_FLOW_ACTION_TYPE_SAMPLE => self.sample(scratch, nested)?,
                ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD => {
                    modify::translate(self.value()?, self.form, self.index)?
                }
                ffi::RTE_FLOW_ACTION_TYPE_VXLAN_ENCAP => {
                    let room = if nested { &scratch.sample_headers } else { &scratch.headers };
                    Action::VxlanEncap(self.headers(room)?)
                }
                ffi::RTE_FLOW_ACTION_TYPE_VXLAN_DECAP => Action::VxlanDecap,
                ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP => {
                    let conf: ffi::rte_flow_action_raw_encap = self.value()?;
                    Action::RawEncap(self.raw(conf.data, conf.size, "raw encap data cannot be empty")?)
                }
                ffi::RTE_FLOW_ACTION_TYPE_RAW_DECAP => {
                    let conf: ffi::rte_flow_action_raw_decap = self.value()?;
                    Action::RawDecap(self.raw(conf.data, conf.size, "raw decap data cannot be empty")?)
                }
                _ => self.edit()?,
            })
        }
    }

    /// Actions that edit one header field or register, and any others.
    unsafe fn edit<'a>(&self) -> Result<Action<'a>, Refusal> {
        // SAFETY: in all arms, `rte_flow.h` gives each of these types the structure that is read here.
        unsafe {
            Ok(match self.kind {
                ffi::RTE_FLOW_ACTION_TYPE_SET_TAG => {
                    let conf: ffi::rte_flow_action_set_tag = self.value()?;
                    Action::SetTag { index: conf.index, data: conf.data, mask: conf.mask }
                }
                ffi::RTE_FLOW_ACTION_TYPE_SET_META => {
                    let conf: ffi::rte_flow_action_set_meta = self.value()?;
                    Action::SetMeta { data: conf.data, mask: conf.mask }
                }
                ffi::RTE_FLOW_ACTION_TYPE_SET_MAC_SRC => Action::SetMacSrc(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_MAC_DST => Action::SetMacDst(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_SRC => Action::SetIpv4Src(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DST => Action::SetIpv4Dst(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_SRC => Action::SetIpv6Src(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_DST => Action::SetIpv6Dst(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_TP_SRC => Action::SetTpSrc(self.big_endian()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_TP_DST => Action::SetTpDst(self.big_endian()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_TTL => Action::SetTtl(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_DEC_TTL => Action::DecTtl,
                ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DSCP => Action::SetIpv4Dscp(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_DSCP => Action::SetIpv6Dscp(self.value()?),
                ffi::RTE_FLOW_ACTION_TYPE_INC_TCP_SEQ => Action::AddTcpSeq(self.difference()?),
                ffi::RTE_FLOW_ACTION_TYPE_DEC_TCP_SEQ => Action::AddTcpSeq(-self.difference()?),
                ffi::RTE_FLOW_ACTION_TYPE_INC_TCP_ACK => Action::AddTcpAck(self.difference()?),
                ffi::RTE_FLOW_ACTION_TYPE_DEC_TCP_ACK => Action::AddTcpAck(-self.difference()?),
                ffi::RTE_FLOW_ACTION_TYPE_OF_POP_VLAN => Action::PopVlan,
                ffi::RTE_FLOW_ACTION_TYPE_OF_PUSH_VLAN => Action::PushVlan(self.big_endian()?),
                ffi::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_VID => Action::SetVlanVid(self.big_endian()?),
                ffi::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_PCP => Action::SetVlanPcp(self.value()?),
                other => Action::Other(other as i32),
            })
        }
    }

    /// A structure that is one 16-bit number as on the wire.
    unsafe fn big_endian(&self) -> Result<u16, Refusal> {
        // SAFETY: as asked of the caller.
        unsafe { self.value::<[u8; 2]>() }.map(u16::from_be_bytes)
    }

    /// `inc_tcp_seq` and its like: a 32-bit number as on the wire.
    unsafe fn difference(&self) -> Result<i64, Refusal> {
        // SAFETY: as asked of the caller.
        unsafe { self.value::<[u8; 4]>() }.map(|bytes| i64::from(u32::from_be_bytes(bytes)))
    }

    /// `rss`: its queues; the hash is the device's own.
    unsafe fn rss<'a>(&self) -> Result<Action<'a>, Refusal> {
        // SAFETY: as asked of the caller.
        let Some(conf) = unsafe { self.conf::<ffi::rte_flow_action_rss>() }? else {
            return Ok(Action::Rss { queues: &[] });
        };
        if self.form == Form::Mask {
            return Ok(Action::Rss { queues: &[u16::MAX] });
        }
        // A template may leave the queues to its rules.
        if self.form != Form::Template || conf.queue_num != 0 {
            rss::check(&conf)
                .map_err(|(errno, message)| Refusal::new(errno, Cause::ActionConf(self.index), message))?;
        }
        if conf.queue.is_null() || !conf.queue.is_aligned() {
            return Ok(Action::Rss { queues: &[] });
        }
        // SAFETY: `queue` is not null, aligned, and points to `queue_num` numbers, which the check has
        // bounded.
        Ok(Action::Rss { queues: unsafe { slice::from_raw_parts(conf.queue, conf.queue_num as usize) } })
    }

    /// `indirect`: what its handle, an integer, refers to.
    unsafe fn shared(&self, scratch: &Scratch<'_>) -> Result<Option<Shared>, Refusal> {
        if self.conf.is_null() {
            // SAFETY: nothing is read.
            return unsafe { self.conf::<()>() }.map(|_| None);
        }
        match scratch.lives.and_then(|lives| lives.find(self.conf.cast())) {
            Some(shared) => Ok(Some(shared)),
            // A mask only tells the type.
            None if self.form == Form::Mask => Ok(None),
            None => Err(Refusal::new(Errno::Inval, Cause::ActionConf(self.index), "no such indirect action")),
        }
    }

    /// `sample`: its ratio, and the copy's actions.
    unsafe fn sample<'a>(&self, scratch: &'a Scratch<'a>, nested: bool) -> Result<Action<'a>, Refusal> {
        if nested {
            return Err(self.refuse(Errno::Notsup, "sample within a sample is not supported"));
        }
        // SAFETY: as asked of the caller.
        let conf: ffi::rte_flow_action_sample = unsafe { self.value() }?;
        if conf.actions.is_null() || self.form == Form::Mask {
            return Ok(Action::Sample { ratio: conf.ratio, actions: &[] });
        }
        let mut actions = ArrayVec::<_, SAMPLE_ACTIONS_MAX>::new();
        // SAFETY: a list, says `rte_flow.h`. What is wrong in it is this action's fault.
        unsafe { list(conf.actions, self.form, scratch, true, &mut actions) }
            .map_err(|refusal| Refusal { cause: Cause::Action(self.index), ..refusal })?;
        let mut sample = SampleActions { list: [Action::Drop; SAMPLE_ACTIONS_MAX], len: actions.len() };
        sample.list[..actions.len()].copy_from_slice(&actions);
        if scratch.sample.set(sample).is_err() {
            return Err(self.refuse(Errno::Inval, "Multiple sample actions not supported"));
        }
        let actions = scratch.sample.get().map_or(&[][..], |sample| &sample.list[..sample.len]);
        Ok(Action::Sample { ratio: conf.ratio, actions })
    }

    /// `vxlan_encap`: the headers that its items make.
    unsafe fn headers<'a>(&self, room: &'a OnceCell<Headers>) -> Result<&'a [u8], Refusal> {
        // SAFETY: as asked of the caller.
        let conf: ffi::rte_flow_action_vxlan_encap = unsafe { self.value() }?;
        match self.form {
            Form::Mask if conf.definition.is_null() => return Ok(&[]),
            Form::Mask => return Ok(CONSTANT),
            Form::Insertion if conf.definition.is_null() => return Ok(&[]),
            _ => {}
        }
        // SAFETY: `definition` is null or a list of items, says `rte_flow.h`.
        let headers =
            unsafe { encap::build(conf.definition) }.map_err(|message| self.refuse(Errno::Inval, message))?;
        if room.set(headers).is_err() {
            return Err(self.refuse(Errno::Inval, "can only have a single encap action in a flow"));
        }
        Ok(room.get().map_or(&[], |headers| headers.as_slice()))
    }

    /// `raw_encap`'s and `raw_decap`'s bytes. `raw_decap` may come without data: then only the size counts,
    /// and it is an Ethernet header or more.
    unsafe fn raw<'a>(&self, data: *const u8, size: usize, empty: &'static str) -> Result<&'a [u8], Refusal> {
        match self.form {
            Form::Mask if data.is_null() => return Ok(&[]),
            Form::Mask => return Ok(CONSTANT),
            Form::Insertion if data.is_null() => return Ok(&[]),
            _ => {}
        }
        if size > ENCAP_BYTES_MAX {
            return Err(self.refuse(Errno::Inval, "raw encap and decap data are too long"));
        }
        if data.is_null() && self.kind == ffi::RTE_FLOW_ACTION_TYPE_RAW_DECAP {
            return Ok(&encap::ZEROES[..size]);
        }
        if size == 0 || data.is_null() {
            return Err(self.refuse(Errno::Inval, empty));
        }
        // SAFETY: `data` is not null and points to `size` bytes, says `rte_flow.h`.
        Ok(unsafe { slice::from_raw_parts(data, size) })
    }
}
