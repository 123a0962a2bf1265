//! A machine that begins anew because the cluster says so.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::condition::Time;

/// What is made anew, and so lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wipe {
    /// The state partition: `/var`, `/home`, and the machine's own changes to `/etc`, `/opt`, `/root` and `/srv`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub state: bool,
    /// The oem partition, which has the machine's own cloud-config.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oem: bool,
}

/// The order to begin anew with the image that runs: at the reboot, and not before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct ResetOrder {
    /// Identity of the order: a machine begins anew once for each.
    #[schemars(length(min = 1, max = 64), extend("pattern" = "^[A-Za-z0-9:.+-]*$"))]
    pub id: String,
    /// What is lost.
    pub wipe: Wipe,
    /// The kernel's boot ID of the boot that is to end: in any other one nothing is begun, whatever the machine has forgotten.
    #[schemars(length(min = 1, max = 64))]
    pub boot_id: String,
    /// After this nothing is begun any more.
    pub not_after: Time,
}

/// What became of the last order to begin anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResetStatus {
    /// The order's.
    pub id: String,
    /// Why the machine did not begin anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<PlanError>,
}
