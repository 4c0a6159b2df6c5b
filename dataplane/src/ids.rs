//! Small numbers that must not be confused with one another.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            /// The number as an array index.
            #[inline]
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A port, by its position in the configuration. The binary maps it to a DPDK port number.
    PortId(u16)
);
id!(
    /// A worker: the owner of one connection table, one rx/tx queue pair on every port.
    WorkerId(u16)
);
id!(
    /// A service, by its slot in the snapshot. Stable across reloads for a service of the same name.
    ServiceId(u16)
);
id!(
    /// A backend of one service, by its slot in the snapshot. Stable across reloads for the same
    /// (service, address, port); a slot is reused only once no connection refers to it.
    BackendId(u16)
);
id!(
    /// A tenant. Connections of different tenants never meet, whatever their addresses.
    TenantId(u16)
);
