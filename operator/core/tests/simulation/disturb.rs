//! What nobody planned: people, machines and clocks.

use evenkeel_crds::{cloud_config::OrderedCloudConfig, condition::Time, node_plan::Wipe, rollout::Pause};
use jiff::SignedDuration;

use crate::{
    agent::Fate,
    dice::Dice,
    look,
    wanted::{FIRST, SECOND, THIRD, image},
    world::World,
};

/// Something happens, or nothing.
pub fn disturb(world: &mut World, dice: &mut Dice) {
    let names: Vec<String> = world.nodes.keys().cloned().collect();
    let name = dice.pick(&names).clone();
    match dice.roll(4) {
        0 => to_machine(world, dice, &name),
        1 => to_objects(world, dice, &name),
        2 => to_policy(world, dice),
        _ => {}
    }
}

fn to_machine(world: &mut World, dice: &mut Dice, name: &str) {
    let now = world.now;
    let (until, serves) = (now + SignedDuration::from_mins(5), dice.one_in(2));
    let agent = world.agents.get_mut(name).expect("made with its node");
    match dice.roll(8) {
        0 => agent.flap(until),
        1 => agent.silence(now, until),
        2 => agent.lose_memory(),
        3 => {
            world.etcd.entry(name.to_owned()).and_modify(|ready| *ready = serves);
        }
        4 | 5 => world.node(name).ready = serves,
        _ => {
            let status = if serves { "True" } else { "False" };
            world.node(name).conditions.insert("DiskOk".into(), status.into());
        }
    }
    world.seen.add(if agent_is_silent(world, name) { "silent agent" } else { "machine disturbed" });
    world.touch(name, true, false);
}

fn agent_is_silent(world: &World, name: &str) -> bool {
    world.agents[name].is_silent(world.now)
}

fn to_objects(world: &mut World, dice: &mut Dice, name: &str) {
    let is_last = world.nodes.values().filter(|node| !node.gone).count() == 1;
    let node = world.node(name);
    match dice.roll(9) {
        0 | 1 if node.disruption().is_none() && !node.unschedulable && !node.gone => {
            node.unschedulable = true;
            world.foreign_cordons.insert(name.to_owned());
        }
        2 if !is_last && !node.gone => return world.delete_node(name),
        2 if node.gone => {
            world.seen.add("machine replaced");
            world.add_node(name, false, Fate::Fine, SignedDuration::ZERO);
        }
        3 => {
            let (name, control_plane) = (world.new_name(), dice.one_in(6));
            world.add_node(&name, control_plane, Fate::Fine, SignedDuration::ZERO);
        }
        4 => node.selected = !node.selected,
        5 => {
            let other = node.claimed_by_other.take();
            node.claimed_by_other = other.is_none().then(|| "older".to_owned());
        }
        6 => return world.delete_plan(name),
        8 if !node.gone => {
            let (state, oem) = (!dice.one_in(3), dice.one_in(3));
            node.reset = (state || oem).then_some(Wipe { state, oem });
            world.seen.add("reset wanted");
        }
        7 if !node.gone => {
            node.domain = format!("zone-{}", dice.roll(3));
            world.seen.add("moved");
        }
        _ => return,
    }
    world.touch(name, true, false);
}

fn to_policy(world: &mut World, dice: &mut Dice) {
    let policy = &mut world.policy;
    match dice.roll(12) {
        0 | 1 => policy.pauses.push(Pause {
            owner: "night-shift".into(),
            reason: "deploy".into(),
            until: Some(Time(world.now + SignedDuration::from_mins(3))),
        }),
        2 => policy.image = Some(image(SECOND)),
        3 => policy.image = Some(image(FIRST)),
        4 => policy.image = None,
        5 => policy.dry_run = !policy.dry_run,
        6 => look::run_now(policy, world.now + SignedDuration::from_mins(5)),
        7 => {
            let digest = if dice.one_in(2) { FIRST } else { SECOND };
            policy.allowed = dice.one_in(2).then(|| digest.to_owned());
        }
        8 => policy.pull.plain_http = !policy.pull.plain_http,
        10 => {
            policy.recovery_image = dice.one_in(2).then(|| image(THIRD));
            world.seen.add("recovery");
        }
        9 | 11 => {
            policy.cloud_config = policy.cloud_config.is_none().then(configured);
            policy.reboot.on_cloud_config_change = dice.one_in(4);
            world.seen.add("configured");
        }
        _ => {}
    }
}

/// A cloud-config of the cluster's.
fn configured() -> OrderedCloudConfig {
    OrderedCloudConfig { document: "{}".into(), sha256: "0123456789abcdef".repeat(4) }
}

/// Nobody disturbs any more.
pub fn calm_down(world: &mut World, dice: &mut Dice) {
    world.policy.dry_run = false;
    world.etcd.retain(|name, _| world.nodes.contains_key(name));
    world.etcd.values_mut().for_each(|ready| *ready = true);
    if world.policy.image.is_none() || dice.one_in(3) {
        world.policy.image = Some(image(SECOND));
    }
    let cordoned = std::mem::take(&mut world.foreign_cordons);
    for name in world.nodes.keys().cloned().collect::<Vec<_>>() {
        let node = world.node(&name);
        node.unschedulable &= !cordoned.contains(&name) || node.cordoned_by.is_some();
        node.selected = true;
        node.claimed_by_other = None;
        node.conditions.insert("DiskOk".into(), "True".into());
        node.ready |= node.disruption().is_none() && !node.gone;
        world.touch(&name, true, true);
    }
}
