//! How a request is turned down: `rte_flow_error` and its errno.

/// What was at fault: `rte_flow_error_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Cause {
    /// `UNSPECIFIED`: the device, or nothing in particular.
    Unspecified,
    /// `HANDLE`: the rule, table or object named.
    Handle,
    /// `ATTR_GROUP`
    Group,
    /// `ATTR_PRIORITY`
    Priority,
    /// `ATTR_INGRESS`
    Ingress,
    /// `ATTR_EGRESS`
    Egress,
    /// `ATTR_TRANSFER`
    Transfer,
    /// `ATTR`: the attributes together.
    Attr,
    /// `ITEM_NUM`: the pattern's length or make-up.
    ItemNum,
    /// `ITEM_SPEC` of the item with this index.
    ItemSpec(usize),
    /// `ITEM_LAST` of the item with this index.
    ItemLast(usize),
    /// `ITEM_MASK` of the item with this index.
    ItemMask(usize),
    /// `ITEM`: the item with this index.
    Item(usize),
    /// `ACTION_NUM`: the list's length.
    ActionNum,
    /// `ACTION_CONF` of the action with this index.
    ActionConf(usize),
    /// `ACTION`: the action with this index.
    Action(usize),
    /// `ACTION` without an index: the list as a whole lacks something.
    Actions,
}

/// A request refused. Positive errno, as `rte_errno` has it; Linux's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} (errno {errno})")]
pub struct Refusal {
    /// The errno.
    pub errno: Errno,
    /// What was at fault.
    pub cause: Cause,
    /// Why, for a person.
    pub message: &'static str,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub const fn new(errno: Errno, cause: Cause, message: &'static str) -> Refusal {
        Refusal { errno, cause, message }
    }
}

/// The errnos this device answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i32)]
pub enum Errno {
    /// No such object.
    Noent = 2,
    /// Input or output error: an injected fault, or the driver's own.
    Io = 5,
    /// Try again later.
    Again = 11,
    /// Out of memory (of the device or the host).
    Nomem = 12,
    /// Not permitted on this port.
    Acces = 13,
    /// In use.
    Busy = 16,
    /// Exists already.
    Exist = 17,
    /// Not started, or gone.
    Nodev = 19,
    /// Malformed, or not legal here.
    Inval = 22,
    /// No space.
    Nospc = 28,
    /// Out of range.
    Range = 34,
    /// No such call in this mode.
    Nosys = 38,
    /// Legal, but not supported by this device.
    Notsup = 95,
    /// Timed out.
    Timedout = 110,
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", *self as i32)
    }
}
