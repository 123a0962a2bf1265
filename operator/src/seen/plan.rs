//! A plan as it is kept: each look at the fleet has all of them, and shares what is in them.

use std::borrow::Cow;

use evenkeel_crds::{
    NodePlan,
    node_plan::{NodePlanSpec, NodePlanStatus},
};
use evenkeel_operator_core::{PlanSeen, Shared};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A plan.
#[derive(Clone, Debug)]
pub struct KnownPlan {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The operator's order.
    pub spec: Shared<NodePlanSpec>,
    /// The agent's account; an empty one while there is none.
    pub status: Shared<NodePlanStatus>,
}

impl KnownPlan {
    /// The plan, as the planner sees it.
    pub fn seen(&self) -> PlanSeen {
        PlanSeen { spec: self.spec.clone(), status: self.status.clone() }
    }
}

impl From<NodePlan> for KnownPlan {
    fn from(NodePlan { metadata, spec, status }: NodePlan) -> Self {
        Self { metadata, spec: spec.into(), status: status.unwrap_or_default().into() }
    }
}

impl<'de> Deserialize<'de> for KnownPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NodePlan::deserialize(deserializer).map(Self::from)
    }
}

impl Resource for KnownPlan {
    type DynamicType = ();
    type Scope = <NodePlan as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        NodePlan::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        NodePlan::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        NodePlan::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        NodePlan::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
