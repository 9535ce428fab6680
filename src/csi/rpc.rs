//! The calls that are ever made.

use std::fmt;

macro_rules! rpcs {
    ($($(#[$doc:meta])* $name:ident = $service:literal / $method:literal),+ $(,)?) => {
        /// A call; all of them only read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rpc {
            $($(#[$doc])* $name),+
        }

        impl Rpc {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The method's name in the specification, without its service.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $method),+ }
            }

            /// The path on the wire.
            #[must_use]
            pub fn path(self) -> &'static str {
                match self { $(Self::$name => concat!("/", $service, "/", $method)),+ }
            }
        }
    };
}

rpcs! {
    /// Is it well?
    Probe = "csi.v1.Identity" / "Probe",
    /// Who is it?
    PluginInfo = "csi.v1.Identity" / "GetPluginInfo",
    /// What is the product able to do?
    PluginCapabilities = "csi.v1.Identity" / "GetPluginCapabilities",
    /// What can its controller do?
    ControllerCapabilities = "csi.v1.Controller" / "ControllerGetCapabilities",
    /// What can it do on this node?
    NodeCapabilities = "csi.v1.Node" / "NodeGetCapabilities",
    /// Which node is it on?
    NodeInfo = "csi.v1.Node" / "NodeGetInfo",
    /// What can it do with groups?
    GroupCapabilities = "csi.v1.GroupController" / "GroupControllerGetCapabilities",
    /// What a kubelet asks a registration socket.
    RegistrationInfo = "pluginregistration.Registration" / "GetInfo",
}

impl fmt::Display for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
